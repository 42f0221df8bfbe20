"""A mixed programme of blocks, and a digest of everything it comes to."""

from __future__ import annotations

from blake3 import blake3

from consensus.ledger.transaction import Transaction
from tests.consensus.ledger.world import World, ent, person, populated, public_key, token


def mixed_blocks(world: World) -> list[list[Transaction]]:
    """Return three blocks that touch most of what the executor does."""
    holds = ("charter.place_hold", [["agency", ["services"]]], ["all"], None, "Act")
    add = ("charter.add_key", "treasury", token("clerk"), public_key("spare"))
    return [
        [
            world.disburse("ann"),
            world.disburse("ann", 24_313),
            world.draft("clerk", ("payments.transfer", "a", "b", 3), ("payments.open_purse", "n")),
            world.draft("auditor", ("payments.freeze", person("bob"), None)),
            world.draft("admin", add, expects=[("key", [public_key("spare")], 0)]),
        ],
        [
            world.draft("admin", holds),
            world.draft("social", ("benefits.renew", person("ann")), expects=[(*ent("ann"), 1)]),
            world.draft(
                "registrar",
                ("identity.rename", person("ann"), "Anna"),
                ("identity.go_abroad", person("ann")),
                expects=[("person", person("ann"), 1)],
            ),
            world.disburse("ann", 24_314),
            world.draft("spare", ("payments.transfer", "a", "n", 4), sequence=1),
        ],
        [
            world.draft("admin", ("charter.suspend_principal", "treasury", token("clerk"))),
            world.draft("clerk", ("payments.transfer", "a", "b", 3)),
            world.draft("nobody", ("payments.transfer", "a", "b", 3)),
        ],
    ]


def digest() -> str:
    """Return a digest of all decisions and writes of the programme."""
    world = populated()
    total = blake3()
    for block in mixed_blocks(world):
        result = world.run(*block)
        total.update(result.results_root)
        for decision in result.decisions:
            total.update(decision.encode())
        for write in result.writes:
            total.update(write.kh + write.vh + write.row)
    return total.hexdigest()


if __name__ == "__main__":
    print(digest())
