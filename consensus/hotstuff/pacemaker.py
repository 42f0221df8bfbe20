"""When a leader proposes and how long a round may last. Arithmetic on times, no state but one mean.

Every replica computes the earliest moment at which the leader may propose, from what itself knows,
and gives the round up one timeout after that moment. So an idle chain does not time out, and
waiting that the rules impose (spacing, empty blocks) is not held against the leader.

The timeout grows with consecutive failed rounds and is capped: rounds never run away.

A leader that failed before is waited for a short time only, until it has proposed a block that can
be voted for. That time counts from the latest moment at which an honest leader would propose that
knows a little less than we do, and is a multiple of the observed round time: what delays everybody
delays that too. Not here: for whom it is set (``turns``), and when it is not (``rounds``).
"""

from __future__ import annotations

from dataclasses import dataclass

from consensus.hotstuff.events import ReplicaConfig


@dataclass(frozen=True, slots=True)
class Situation:
    """What the current round depends on. Times are of the local clock, in milliseconds.

    Args:
        entered_ms: when this round was entered.
        by_timeout: it was entered by a timeout certificate.
        ordered_ms: when the highest quorum certificate was learned.
        work_since_ms: since when batches are available that the ordered chain lacks; None if none.
        payload_allowed: the windows of execution and certification permit payload (rule 9).
        proposal_ms: when this round's block arrived; None if it has not.
        parent_ms: when the block of the highest quorum certificate arrived.
        parent_bytes: size of its payload.
        parent_certified: a commit certificate covers it.
        execution_behind: own execution lags behind its window; empty blocks come half as often, so
            that they do not outrun it.
        results_disagree: some undelivered block can get no commit certificate.
    """

    entered_ms: int
    by_timeout: bool
    ordered_ms: int
    work_since_ms: int | None
    payload_allowed: bool
    proposal_ms: int | None
    parent_ms: int
    parent_bytes: int
    parent_certified: bool
    execution_behind: bool
    results_disagree: bool


class Pacemaker:
    """The rules of time for one replica."""

    def __init__(self, config: ReplicaConfig) -> None:
        self._config = config
        self.round_time_ms = max(config.round_time_min_ms, config.timeout_base_ms // 10)
        """Observed from a block's arrival to its certificate; peaks count, then fade."""

    def observe(self, duration_ms: int) -> None:
        """Take note of how long a round took."""
        faded = max(duration_ms, self.round_time_ms * 7 // 8)
        low, high = self._config.round_time_min_ms, self._config.timeout_base_ms
        self.round_time_ms = min(max(faded, low), high)

    def duration_ms(self, failures: int) -> int:
        """Return how long a round lasts after ``failures`` consecutive failed ones."""
        config = self._config
        duration = config.timeout_base_ms
        for _ in range(failures):
            if duration >= config.timeout_max_ms:
                break
            duration = duration * config.timeout_growth_num // config.timeout_growth_den
        return min(duration, config.timeout_max_ms)

    def deadline_ms(
        self, situation: Situation, propose_ms: int, failures: int, *, hurried: bool
    ) -> int:
        """Return when the round is given up.

        Args:
            propose_ms: what ``propose_from_ms`` says of the same situation.
            failures: consecutive failed rounds before this one.
            hurried: the leader failed before and has not proposed what can be voted for.
        """
        deadline_ms = self.start_ms(situation, propose_ms) + self.duration_ms(failures)
        if not hurried:
            return deadline_ms
        return min(deadline_ms, self._latest_ms(situation, propose_ms) + self.short_ms)

    @property
    def short_ms(self) -> int:
        """How long a proposal of a leader that failed before is waited for."""
        config = self._config
        return max(config.short_timer_min_ms, config.short_timer_rounds * self.round_time_ms)

    def _latest_ms(self, situation: Situation, propose_ms: int) -> int:
        """Return the latest moment at which an honest leader whose knowledge differs proposes.

        It may have to be told of the batch, lack the parent's commit certificate, or be behind
        with its execution so that it may propose no payload.
        """
        if situation.by_timeout:
            return propose_ms
        config, latest_ms = self._config, propose_ms
        if situation.work_since_ms is not None:
            latest_ms = max(latest_ms, situation.work_since_ms + config.announce_ms)
        if situation.parent_bytes:
            latest_ms = max(latest_ms, situation.parent_ms + config.block_spacing_ms)
        if not situation.parent_certified:
            latest_ms = max(latest_ms, situation.entered_ms + self.round_time_ms)
            if not situation.parent_bytes:
                latest_ms = max(latest_ms, situation.parent_ms + 2 * config.empty_block_ms)
        return latest_ms

    def payload_from_ms(self, situation: Situation) -> int | None:
        """Return when the leader may propose payload; None while there is none or it may not."""
        if situation.work_since_ms is None or not situation.payload_allowed:
            return None
        start = max(situation.entered_ms, situation.work_since_ms)
        if situation.parent_bytes:  # each block costs the same to order, however full it is
            config, certified = self._config, situation.parent_certified
            spacing_ms = config.certified_spacing_ms if certified else config.block_spacing_ms
            start = max(start, situation.parent_ms + spacing_ms)
        return start

    def propose_from_ms(self, situation: Situation) -> int:
        """Return the earliest moment at which the leader proposes, be it an empty block."""
        config = self._config
        if situation.by_timeout:
            return situation.entered_ms
        start = situation.ordered_ms + config.heartbeat_ms
        if (payload_from := self.payload_from_ms(situation)) is not None:
            start = min(start, payload_from)
        if not situation.parent_certified:
            gap = config.empty_block_ms * (2 if situation.execution_behind else 1)
            if situation.results_disagree:
                gap = config.stalled_block_ms
            wait = situation.entered_ms + self.round_time_ms
            if situation.parent_bytes == 0 or situation.results_disagree:
                wait = max(wait, situation.parent_ms + gap)
            start = min(start, wait)
        return max(situation.entered_ms, start)

    def start_ms(self, situation: Situation, propose_ms: int) -> int:
        """Return the moment from which the round's timer counts.

        Args:
            propose_ms: what ``propose_from_ms`` says of the same situation.
        """
        if situation.proposal_ms is None:
            return propose_ms
        return min(propose_ms, max(situation.entered_ms, situation.proposal_ms))
