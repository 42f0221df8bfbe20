"""Keys and member files of an agency that joins a network, or of a member that replaces its own.

    new_member   all keys, for an agency that joins; the file brings its people too. Or for a member
                 whose machine is lost
    renewed      the next keys of a validator, or the same keys with another address

Each is made on the agency's own machine. The file is for one network alone and signed by both keys
that it brings; what it asks for takes a quorum of the members (``members``).

Not here: a founding, where nobody is a member yet (``ceremony``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from comity import founding, keys
from comity.ceremony import Address, Enrolment, InMemory, KeyHolder, enrolment, signed, validator_of
from comity.errors import DraftError
from comity.founding import Person
from consensus import genesis
from consensus.committee import Validator
from consensus.keyfile import KeyKind, KeyPair
from consensus.ledger.kernel.committee import PEOPLE_MAX
from consensus.memberfile import Member

NEXT: Final = "-next"
"""What the names of the next keys end in, beside those in use."""


def new_member(
    chain: bytes,
    agency: str,
    address: Address,
    people: Mapping[str, bytes | None],
    *,
    make_certificate: founding.MakeCertificate,
    holder: KeyHolder | None = None,
) -> Enrolment:
    """Make the keys of an agency that joins, and the file by which the members know them.

    Args:
        people: who acts for it from the start, with public keys; None: the key is made here. A
            member whose machine is lost brings none.
        holder: of a validator key that is kept elsewhere; without one the key is made here.

    Raises:
        DraftError: too many would act for it.
    """
    if len(people) > PEOPLE_MAX:
        raise DraftError(
            f"{len(people)} people, at most {PEOPLE_MAX} act for a new member at first",
            hint="name its administrators; they admit the others later",
        )
    if taken := {"validator", "node"} & set(people):
        raise DraftError(f"nobody can be named {min(taken)}", hint="choose another name")
    return enrolment(
        chain,
        agency,
        address,
        [(Person(name, agency, genesis.OFFICIAL), key) for name, key in sorted(people.items())],
        make_certificate=make_certificate,
        holder=holder,
    )


def renewed(
    chain: bytes,
    before: Validator,
    address: Address,
    kept: Mapping[str, KeyPair],
    *,
    make_certificate: founding.MakeCertificate,
    holder: KeyHolder | None = None,
) -> Enrolment:
    """Make the next keys of a member's validator, and the file that asks for them.

    Args:
        before: as the committee has it.
        kept: the present keys that stay, by name: ``validator``, ``node``, both or none.
        holder: of the validator key from then on, the present or the next one, which is kept
            elsewhere; without one it is kept or made here.

    Raises:
        DraftError: a kept key is not the one in the committee, or nothing would change.
    """
    for name, public in (("validator", before.key), ("node", before.node_key)):
        if name in kept and kept[name].public != public:
            raise DraftError(
                f"the {name} key that is to stay is not the one that the committee names",
                hint="the next keys take effect with a change of the committee; "
                "until then the present ones stay where they are",
            )
    files = {
        f"{name}{NEXT}": keys.new_pair(kind)
        for name, kind in (("validator", KeyKind.VALIDATOR), ("node", KeyKind.NODE))
        if name not in kept and (name != "validator" or holder is None)
    }
    validator = holder or InMemory(kept.get("validator") or files[f"validator{NEXT}"])
    node = kept.get("node") or files[f"node{NEXT}"]
    own = validator_of(before.agency, validator.public, node, address, make_certificate)
    if own == before:
        raise DraftError(
            "nothing would change", hint="make a new key, or name another address with --peers"
        )
    return Enrolment(signed(Member(chain, own, ()), validator, node), files)
