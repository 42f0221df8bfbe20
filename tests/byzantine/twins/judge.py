"""The promises of ordering, judged from what sites send and deliver, by arithmetic of its own.

Counted is what was *sent*, whether or not it arrived: a certificate that could be put together
from it exists. Sites of a twin's key are one Byzantine validator; each of them alone still keeps
what honest code keeps.
"""

from __future__ import annotations

from consensus import codec
from consensus.hotstuff.types import (
    Block,
    CommitCert,
    CommitVote,
    Message,
    Proposal,
    Timeout,
    Vote,
)
from tests.byzantine.twins.scenario import keys_of


class Broken(AssertionError):
    """A promise was broken. ``promise`` names which."""

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(f"{promise}: {what}")
        self.promise = promise


AGREEMENT = "agreement"
ONE_BLOCK = "one block a round"
ONE_SIGNATURE = "one signature a slot"
GUARD = "commit votes and timeouts agree"
GIVEN_UP = "no vote after the timeout of its round"
LOCK = "a vote extends what timeouts report"
IN_ORDER = "in order and once"
QUORUM = "certificates have a quorum"
PROGRESS = "new work is certified"
EVIDENCE = "no evidence among the honest"


class Judge:
    """One network.

    Args:
        size: validators.
        genesis: the block of height 0.
        ignore: promises not to be judged, to see whether the others notice.
    """

    def __init__(self, size: int, genesis: Block, ignore: tuple[str, ...] = ()) -> None:
        self._quorum = size - (size - 1) // 3
        self._keys = keys_of(size)
        self._ignore = ignore
        self._slots: dict[tuple[int, str, int], bytes] = {}
        self._timeouts: list[list[tuple[int, int]]] = [[] for _ in self._keys]
        self._commits: list[list[int]] = [[] for _ in self._keys]
        self._voters: dict[int, dict[bytes, set[int]]] = {}
        self._results: dict[bytes, set[int]] = {}
        self._certified: dict[int, CommitVote] = {}
        self._tips = [genesis] * len(self._keys)
        self.blocks: dict[bytes, Block] = {genesis.id: genesis}
        """Every block ever proposed."""
        self.chain: dict[int, Block] = {0: genesis}
        """What was delivered, by height, whoever was first."""
        self.marks: dict[str, int] = {}

    def reach(self, mark: str) -> None:
        """Note that something rare has happened."""
        self.marks[mark] = self.marks.get(mark, 0) + 1

    def _require(self, condition: bool, promise: str, what: str) -> None:
        if not condition and promise not in self._ignore:
            raise Broken(promise, what)

    # --- what is said ---

    def says(self, place: int, message: Message) -> None:
        """A site, or a liar in its place, sends something for the first time or again."""
        match message:
            case Proposal(block):
                self._says_once(place, "proposal", block.round, block.id)
                self.blocks[block.id] = block
            case Vote():
                self._votes(place, message)
            case Timeout():
                self._gives_up(place, message)
            case CommitVote():
                self._says_result(place, message)
            case _:
                pass

    def lies(self, key: int, message: Message) -> None:
        """A Byzantine validator says something: it counts as said, and is not judged."""
        match message:
            case Proposal(block):
                self.blocks[block.id] = block
            case Vote():
                self._count_vote(key, message)
            case CommitVote():
                self._count_result(key, message)
            case _:
                pass

    def _says_once(self, place: int, kind: str, round_: int, body: bytes) -> bool:
        first = self._slots.get((place, kind, round_))
        if first is None:
            self._slots[place, kind, round_] = body
            return True
        self._require(first == body, ONE_SIGNATURE, f"site {place}, {kind} of round {round_}")
        return False

    def _votes(self, place: int, vote: Vote) -> None:
        if not self._says_once(place, "vote", vote.round, vote.body):
            return
        late = [t for t, _ in self._timeouts[place] if t >= vote.round]
        self._require(not late, GIVEN_UP, f"site {place}, round {vote.round} after {late}")
        block = self.blocks.get(vote.block_id)
        if block is not None:
            self._extends(place, block)
        self._count_vote(self._keys[place], vote)

    def _extends(self, place: int, block: Block) -> None:
        """Check rule 2's lock with no more than the block shows."""
        if block.round == block.justify.round + 1:
            return
        entry = block.timeout_cert
        shown = entry is not None and entry.round == block.round - 1
        highest = 0 if entry is None else max(high for _, high, _ in entry.entries)
        self._require(
            shown and block.justify.round >= highest,
            LOCK,
            f"site {place}, round {block.round} on {block.justify.round}, reported {highest}",
        )

    def _count_vote(self, key: int, vote: Vote) -> None:
        blocks = self._voters.setdefault(vote.round, {})
        blocks.setdefault(vote.block_id, set()).add(key)
        ordered = [voters for voters in blocks.values() if len(voters) >= self._quorum]
        self._require(len(ordered) <= 1, ONE_BLOCK, f"round {vote.round}")
        if len(blocks) > 1:
            self.reach("votes for two blocks of a round")

    def _gives_up(self, place: int, timeout: Timeout) -> None:
        if not self._says_once(place, "timeout", timeout.round, timeout.body):
            return
        round_, high = timeout.round, timeout.high_round
        above = [r for r in self._commits[place] if high < r <= round_]
        self._require(
            not above, GUARD, f"site {place} reports {high} in round {round_} after {above}"
        )
        self._timeouts[place].append((round_, high))
        if high < round_ - 1:
            self.reach("timeout below its round's parent")

    def _says_result(self, place: int, vote: CommitVote) -> None:
        if not self._says_once(place, "commit vote", vote.round, vote.body):
            return
        round_, statement = vote.round, vote.statement
        lower = [t for t, high in self._timeouts[place] if t >= round_ > high]
        if lower:
            self._require(
                self.two_chain(statement.block_id),
                GUARD,
                f"site {place}, commit vote of {round_} after timeouts {lower}",
            )
            self.reach("commit vote by the two-chain")
        if self._commits[place] and round_ < max(self._commits[place]):
            self.reach("commit vote below the last one")
        self._commits[place].append(round_)
        self._count_result(self._keys[place], vote)

    def _count_result(self, key: int, vote: CommitVote) -> None:
        signers = self._results.setdefault(vote.body, set())
        signers.add(key)
        if len(signers) >= self._quorum:
            known = self._certified.setdefault(vote.statement.height, vote)
            self._require(
                known.statement == vote.statement,
                AGREEMENT,
                f"height {vote.statement.height} can be certified twice",
            )

    def accuses(self, what: str) -> None:
        """A site holds two messages against an honest one."""
        self._require(False, EVIDENCE, what)

    def two_chain(self, block_id: bytes) -> bool:
        """Whether an ordered block and its ordered child of the very next round prove a block."""
        for child in self.blocks.values():
            parent = self.blocks.get(child.parent_id)
            if parent is None or child.round != parent.round + 1:
                continue
            if not (self._is_ordered(child) and (self._is_ordered(parent) or not parent.height)):
                continue
            walk: Block | None = parent
            while walk is not None and walk.id != block_id:
                walk = self.blocks.get(walk.parent_id)
            if walk is not None:
                return True
        return False

    def _is_ordered(self, block: Block) -> bool:
        voters = self._voters.get(block.round, {}).get(block.id, ())
        return len(voters) >= self._quorum

    # --- what is delivered ---

    def restarts(self, place: int) -> None:
        """A site begins again from genesis: it delivers what it had delivered once more."""
        self._tips[place] = self.chain[0]

    def delivers(self, place: int, block: Block, certificate: CommitCert) -> None:
        """A site takes a block for final."""
        tip, where = self._tips[place], f"site {place}, height {block.height}"
        following = (block.height, block.parent_id) == (tip.height + 1, tip.id)
        self._require(following, IN_ORDER, f"{where} after {tip.height}")
        self._tips[place] = block
        first = self.chain.setdefault(block.height, block)
        same = first is block or codec.encode(first.to_value()) == codec.encode(block.to_value())
        self._require(same, AGREEMENT, f"{where}: another block")
        statement = certificate.statement
        self._require(statement.height >= block.height, IN_ORDER, f"{where}: not covered")
        if statement.height > block.height:
            self.reach("delivered by a descendant's certificate")
        signers = {signer for signer, _ in certificate.signatures}
        said = self._results.get(codec.encode(statement.to_value()), set())
        counted = len(certificate.signatures) == len(signers) >= self._quorum
        self._require(counted and signers <= said, QUORUM, f"{where}: signers {sorted(signers)}")

    # --- the end ---

    def finish(self) -> None:
        """Check that everything certified, by whomever it could be, lies on one chain."""
        last = max(self.chain)
        for height, vote in self._certified.items():
            if height <= last:
                same = self.chain[height].id == vote.statement.block_id
                self._require(same, AGREEMENT, f"height {height} is certified elsewhere")
        final = {block.id for block in self.chain.values()}
        for blocks in self._voters.values():
            for block_id, voters in blocks.items():
                block = self.blocks.get(block_id)
                if block is None or block.height > last or block_id in final:
                    continue
                self.reach("voted block abandoned")
                if len(voters) >= self._quorum:
                    self.reach("ordered block abandoned")
