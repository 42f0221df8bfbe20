"""Break-glass: acts with less approval, whose power ends by itself unless somebody reviews them.

    review   [id]                  a use of an action's emergency form, and what became of it
    reviews  [principal, role]     [[id, due_ms], ...]      its uses that await their review
    reviews  [grant]               likewise
    index    [review.role, role]   the same, by the role that reviews (see ``indexes``)

Using an emergency form writes into the role or grant that was used when it ends: when its oldest
open review is due. A review that finds the use justified takes that back; one that does not revokes
the role or grant. So whoever never answers for it has no power left, and nothing need run for that.

Not here: which actions have an emergency form (``rules.emergency``), the act of reviewing
(``kernel.reviews``).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from consensus.codec import Value
from consensus.errors import present
from consensus.hashing import context
from consensus.ledger import indexes
from consensus.ledger.authority import Power, Standing
from consensus.ledger.codes import Code, Refused
from consensus.ledger.layout import OPEN, REVOKED, Review
from consensus.ledger.model import Action, ReviewDue
from consensus.ledger.view import CHARTER, View

REVIEWS_MAX: Final = 16
"""Uses of one role or grant that await their review."""
BY_ROLE: Final = "review.role"

_H_REVIEW: Final = context("review id")


def review_id(txid: bytes, call: int) -> bytes:
    """Return the id of the review that a call of an emergency form makes due."""
    return _H_REVIEW(txid + call.to_bytes(4, "big"))


class Act(NamedTuple):
    """A call of an emergency form: of which transaction, by whom, with which power, and by whom and
    by when it is to be reviewed."""

    txid: bytes
    call: int
    action: Action
    standing: Standing
    power: Power
    due: ReviewDue


def use(view: View, act: Act, now_ms: int) -> None:
    """Note the use of an emergency form; the power behind it ends when the review is due.

    Raises:
        Refused: LIMIT: too many uses of this power await their review.
    """
    txid, call, action, standing, power, asked = act
    space, place = power.source
    waiting = due_at(view, place)
    if len(waiting) >= REVIEWS_MAX:
        raise Refused(Code.LIMIT, "reviews")
    review = Review(
        review_id(txid, call),
        txid,
        call,
        [action.domain, action.name],
        standing.principal.id,
        standing.agency.name,
        place,
        now_ms,
        now_ms + asked.within_ms,
        asked.role,
        OPEN,
        None,
        None,
    )
    view.put("review", [review.id], review, CHARTER)
    indexes.enter(view, CHARTER, [BY_ROLE, review.role], [review.id])
    _await(view, space, place, [*waiting, [review.id, review.due_ms]])


def close(view: View, review: Review) -> None:
    """Write what became of an open review, and what follows for the power behind it."""
    place = review.source
    space = "role" if len(place) == 2 else "grant"
    waiting = [each for each in due_at(view, place) if each[0] != review.id]
    view.put("review", [review.id], review, CHARTER)
    indexes.leave(view, CHARTER, [BY_ROLE, review.role], [review.id])
    _await(view, space, place, waiting, revoked=not review.justified)


def due_at(view: View, place: list[Value]) -> list[list[Value]]:
    """Return the uses of a role or grant that await their review: ``[[id, due_ms], ...]``."""
    found = view.single("reviews", place)
    return [] if found is None else list(found.value)


def earliest(waiting: list[list[Value]]) -> int | None:
    """Return when the power behind these uses ends; None if it does not."""
    return min((due_ms for _, due_ms in waiting), default=None)


def _await(
    view: View, space: str, place: list[Value], waiting: list[list[Value]], *, revoked: bool = False
) -> None:
    view.put("reviews", place, tuple(waiting), CHARTER, steps=False)
    found: Any = present(view.single(space, place), "the power behind a review does not exist")
    given = found.value._replace(suspends_at_ms=earliest(waiting))
    if revoked:
        given = given._replace(status=REVOKED)
    view.put(space, place, given, CHARTER)
