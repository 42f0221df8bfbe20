"""Scene 4: who may not, and that every refusal is in the record."""

from __future__ import annotations

from collections.abc import Sequence

from comity.drafting import Call
from comity.errors import RequestError
from comity.results import Decision
from consensus.codec import Value
from scripts.benefits import MONTH_ZERO_2026, Case
from scripts.demo_parts.cast import Cast
from scripts.demo_parts.conflicts import Hired
from scripts.demo_parts.story import Story

PERIOD = MONTH_ZERO_2026 + 10


async def refused(story: Story, cast: Cast, case: Case, clerk: Hired) -> list[Decision]:
    """Try what nobody may, then find it in the record; return the refusals.

    Args:
        case: of the north.
        clerk: an official of the north whose key is revoked here.
    """
    story.scene(
        "4. Who has no power gets nowhere, and leaves a trace",
        "4. No role, another region, a revoked key: refused, and on the record",
    )
    person = case.household.caregiver
    payment = Call("payments", "disburse", {"entitlement": case.id, "period": PERIOD})
    trainee = await cast.office("treasury/trainee")
    southern = await cast.office("treasury/officer-south")
    first = await trainee.act(payment)
    story.claim(
        "an official without the role is refused",
        seen=(first.code, first.detail),
        expected=("NOT_AUTHORIZED", [["role", "payments.officer", "missing"]]),
    )
    second = await southern.act(payment)
    story.claim(
        "an official of the south is refused in the north",
        seen=(second.code, second.detail),
        expected=("NOT_AUTHORIZED", [["where"]]),
    )
    administrator = await cast.office("registry/administrator")
    hand_out: dict[str, Value] = {"agency": "registry", "principal": clerk.principal}
    scope: Value = ["region", "all"]
    third = await administrator.act(
        Call("charter", "give_role", {**hand_out, "role": "payments.officer", "scope": scope,
                                      "from": await administrator.client.now_ms()})
    )  # fmt: skip
    story.claim(
        "the Civil Registry's administrator cannot hand out the Treasury's roles",
        seen=(third.code, third.detail),
        expected=("NOT_AUTHORIZED", [["where"]]),
    )
    fourth = await _revoked(story, cast, clerk, person.token)
    refusals = [first, second, third, fourth]
    await _in_the_record(story, cast, refusals)
    return refusals


async def _revoked(story: Story, cast: Cast, clerk: Hired, token: bytes) -> Decision:
    """Revoke a key, then use it; return the certified refusal."""
    office = clerk.office
    administrator = await cast.office("registry/administrator")
    inputs: dict[str, Value] = {"person": [token], "given_name": "Dawid", "family_name": "Wagner"}
    call = Call("identity", "correct_name", inputs)
    could = await office.act(call)
    story.claim(
        "the new clerk corrects a name: that is allowed", seen=could.code, expected="APPLIED"
    )
    reads = await office.read(call)
    draft = await office.draft(call, reads)
    signed = office.client.sign(draft)
    revoke: dict[str, Value] = {
        "agency": "registry",
        "principal": clerk.principal,
        "key": clerk.key,
        "compromised": True,
    }
    done = await administrator.act(Call("charter", "revoke_key", revoke))
    story.claim(
        "the clerk's key is stolen, and revoked at once", seen=done.code, expected="APPLIED"
    )
    await cast.reached("integrity", done.height)
    try:
        said = (await office.client.submit(signed)).code
    except RequestError as error:
        said = error.reason
    story.claim(
        "its node takes nothing more from the stolen key",
        seen=said,
        expected="DENIED",
    )
    colleague = await cast.office("registry/officer-north")
    refusal = await colleague.client.submit(signed)
    colleague.receipts.keep([refusal])
    story.claim(
        "what it signed, passed on through somebody else's connection, is refused by the ledger",
        seen=(refusal.code, refusal.detail),
        expected=("KEY_INACTIVE", [clerk.key, "compromised"]),
    )
    return refusal


async def _in_the_record(story: Story, cast: Cast, refusals: Sequence[Decision]) -> None:
    """Read the refusals as an auditor finds them: among all decisions of their heights."""
    auditor = await cast.office("integrity/auditor")
    await auditor.informed()
    actors = []
    for refusal in refusals:
        (height,) = await auditor.client.decisions(refusal.height, 1)
        found = (height.decisions or ())[refusal.index]
        story.claim(
            f"in the record: height {found.height}, position {found.index}, {found.code}",
            seen=(found.root, found.state),
            expected=(refusal.root, "refused"),
        )
        actor = found.leaves["authority"][0]
        actors.append(None if actor is None else actor[1])
    story.claim(
        "each names who tried",
        seen=actors,
        expected=["treasury", "treasury", "registry", "registry"],
    )
