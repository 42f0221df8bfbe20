"""What calls ask of the network itself, in one block: floor, compiled rule books, node keys.

Floor and node keys are those of the committee in force. In the first epoch that is the committee of
the genesis file; later the state says it, and whoever asks for them reads its leaf.

Compiling rule sets costs milliseconds, of a huge one a second. So a block does it a few times for
each agency, and for so many bytes of what is proposed: nobody can hold it up for long.

Not here: the acts (``kernel.rulesets``), and how rule books are kept (``ledger``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from consensus.committee import Committee
from consensus.errors import DecodeError, RulesError
from consensus.ledger.codes import Code, Refused
from consensus.ledger.floor import Floor, floor_of
from consensus.ledger.model import Rulebook
from consensus.ledger.rules.definition import Definition
from consensus.ledger.rules.forms import decode_definition
from consensus.ledger.sealing import Notes
from consensus.ledger.seats import Seats

if TYPE_CHECKING:
    from consensus.ledger.view import View

TURNS_MAX: Final = 2
"""Acts of one agency in one block for which rule sets are compiled."""
PROPOSED_BYTES_MAX: Final = 256 * 1024
"""Rule sets that one block reads because they are proposed: one of the longest, and more."""
REASON_CHARACTERS_MAX: Final = 400


class Governing:
    """Of one block.

    Args:
        founded: the committee of the genesis file.
        notice_ms: of the genesis file.
        chain: of the network.
        compiled: returns the rule book of rule sets, domains ascending, or raises RulesError.
        executor: the number of the behaviour in force.
        nodes: the node keys of the first epoch's agencies; None: deliveries are not judged.
        seats: reads who has a seat now; None in the first epoch.
    """

    __slots__ = (
        "_bytes_left",
        "_floor",
        "_nodes",
        "_notice_ms",
        "_seats",
        "_theirs",
        "_turns",
        "chain",
        "compiled",
        "executor",
        "founded",
        "notes",
    )

    def __init__(
        self,
        founded: Committee,
        notice_ms: int,
        chain: bytes,
        compiled: Callable[[Sequence[bytes]], Rulebook],
        executor: int,
        nodes: Mapping[str, bytes] | None,
        seats: Callable[[View], Seats] | None,
    ) -> None:
        self.founded = founded
        self.chain = chain
        self.compiled = compiled
        self.executor = executor
        self.notes = Notes()
        """What the block did about sealed values."""
        self._notice_ms = notice_ms
        self._nodes = nodes
        self._seats = seats
        self._floor: Floor | None = None
        self._theirs: Mapping[str, bytes] | None = None
        self._turns: dict[str, int] = {}
        self._bytes_left = PROPOSED_BYTES_MAX

    def floor(self, view: View) -> Floor:
        """Return what no rule set can lower, by the committee in force; records the read."""
        seats = None if self._seats is None else self._seats(view)
        if self._floor is None:
            founded = [each.agency for each in self.founded.validators]
            names = founded if seats is None else seats.agencies
            self._floor = floor_of(names, self._notice_ms)
        return self._floor

    def nodes(self, view: View) -> Mapping[str, bytes] | None:
        """Return the node keys of agencies with a seat; None where deliveries are not judged."""
        if self._nodes is None or self._seats is None:
            return self._nodes
        seats = self._seats(view)
        if self._theirs is None:
            self._theirs = dict(seats.pairs)
        return self._theirs

    def take_turn(self, agency: str, size_bytes: int = 0) -> None:
        """Take one of an agency's turns to have rule sets compiled; a refusal gives none back.

        Args:
            size_bytes: of what is proposed.

        Raises:
            Refused: LIMIT: it has had them in this block, or the block has read enough.
        """
        taken = self._turns.get(agency, 0)
        if taken >= TURNS_MAX or size_bytes > self._bytes_left:
            raise Refused(Code.LIMIT, "rules")
        self._turns[agency] = taken + 1
        self._bytes_left -= size_bytes


def named_definition(text: bytes) -> Definition:
    """Return the definition of a rule set whose faults name its domain and number."""
    definition = decode_definition(text)
    return replace(definition, where=f"{definition.domain}#{definition.number}")


def reason_of(error: RulesError | DecodeError) -> str:
    """Return why a rule set is refused, the same on every machine.

    How text beyond ASCII is quoted depends on the version of Python's tables of characters, so such
    a message is cut off before it.
    """
    message = error.message[:REASON_CHARACTERS_MAX]
    kept = []
    for character in message:
        if not " " <= character <= "~" or character == "\\":
            kept.append("...")
            break
        kept.append(character)
    return "".join(kept)
