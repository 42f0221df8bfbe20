"""Announcements, both ways, in virtual time: what is told to whom, and what a liar costs."""

from __future__ import annotations

from collections.abc import Callable

from consensus.hotstuff import announcing
from consensus.hotstuff.announcing import Announcer

NOW = 5_000
ONE, TWO = b"1" * 32, b"2" * 32
OTHERS = [1, 2, 3]


def digest(number: int) -> bytes:
    return number.to_bytes(32)


def waits(*these: bytes) -> Callable[[bytes], bool | None]:
    """Held and unproposed; all others are gone."""
    return lambda digest: True if digest in these else None


def nothing(_: bytes) -> bool:
    return False


def test_batch_is_announced_after_50_ms_to_those_whose_counts_lack_it_and_not_to_its_origin() -> (
    None
):
    it = Announcer(4)
    it.take_counts(2, (0, 7, 0, 0))
    it.take_counts(3, (0, 6, 0, 0))
    it.held(ONE, 1, 7, NOW)
    assert it.next_ms() == NOW + 50
    assert it.announcements(NOW + 49, OTHERS, waits(ONE)) == []
    assert it.announcements(NOW + 50, OTHERS, waits(ONE)) == [(3, (ONE,))]


def test_what_is_proposed_or_gone_by_then_is_not_announced() -> None:
    it = Announcer(4)
    it.held(ONE, 1, 1, NOW)
    it.held(TWO, 1, 2, NOW)
    state = {ONE: None, TWO: False}
    assert it.announcements(NOW + 50, OTHERS, state.__getitem__) == []
    state[TWO] = True  # the block was abandoned
    assert it.announcements(NOW + 1049, OTHERS, state.__getitem__) == []
    assert it.announcements(NOW + 1050, OTHERS, state.__getitem__) == [(2, (TWO,)), (3, (TWO,))]


def test_batch_is_announced_each_second_until_all_hold_it() -> None:
    it = Announcer(4)
    it.held(ONE, 1, 1, NOW)
    times = [at for at in range(NOW, NOW + 3000) if it.announcements(at, OTHERS, waits(ONE))]
    assert times == [NOW + 50, NOW + 1050, NOW + 2050]
    for peer in (2, 3):
        it.take_counts(peer, (0, 1, 0, 0))
    assert it.announcements(NOW + 9000, OTHERS, waits(ONE)) == []


def test_one_frame_in_50_ms_of_64_digests() -> None:
    it = Announcer(4)
    digests = [digest(n) for n in range(100)]
    for number, each in enumerate(digests, 1):
        it.held(each, 1, number, NOW)
    sent = {
        at - NOW: [len(told) for _, told in frames]
        for at in range(NOW, NOW + 500)
        if (frames := it.announcements(at, OTHERS, waits(*digests)))
    }
    assert sent == {50: [64, 64], 100: [36, 36]}


def test_announced_batch_is_asked_for_of_its_announcers_one_after_the_other_each_once() -> None:
    it = Announcer(4)
    assert it.hear(3, [ONE], NOW, nothing) == 0
    assert it.hear(1, [ONE], NOW, nothing) == 0
    asked = {
        at - NOW: found for at in range(NOW, NOW + 9000) if (found := it.asks(at, OTHERS, nothing))
    }
    assert asked == {0: [(3, ONE)], 250: [(1, ONE)]}
    assert not it.looks_for(ONE)
    assert it.next_ask_ms() is None


def test_absent_batch_is_asked_for_elsewhere_at_once_and_who_is_away_is_passed_over() -> None:
    it = Announcer(7)
    for peer in (3, 4, 5):
        it.hear(peer, [ONE], NOW, nothing)
    assert it.asks(NOW, [3, 5], nothing) == [(3, ONE)]
    it.absent(ONE, NOW + 7)
    assert it.next_ask_ms() == NOW + 7
    assert it.asks(NOW + 7, [3, 5], nothing) == [(5, ONE)]
    it.absent(ONE, NOW + 8)
    it.absent(TWO, NOW + 8)
    assert it.asks(NOW + 8, [3, 5], nothing) == []


def test_who_has_no_vote_acknowledges_and_announces_nothing() -> None:
    it = Announcer(4)
    assert not it.take_counts(4, (9, 9, 9, 9))
    assert not it.acknowledged(1, 1)
    assert it.hear(4, [ONE, TWO], NOW, nothing) == 2
    assert not it.looks_for(ONE)


def test_batch_in_check_is_not_asked_for() -> None:
    it = Announcer(4)
    it.hear(3, [ONE], NOW, nothing)
    assert it.asks(NOW, OTHERS, lambda _: True) == []
    assert it.asks(NOW + 249, OTHERS, nothing) == []
    assert it.asks(NOW + 250, OTHERS, nothing) == [(3, ONE)]


def test_held_batch_is_answered_to_its_announcer_and_a_fetched_one_to_all() -> None:
    it = Announcer(4)
    it.hear(3, [ONE], NOW, lambda _: True)
    assert it.announcements(NOW, OTHERS, waits()) == [(3, ())]
    assert it.announcements(NOW + 999, OTHERS, waits()) == []
    it.hear(3, [TWO], NOW + 1000, nothing)
    assert it.announcements(NOW + 1000, OTHERS, waits()) == []
    it.held(TWO, 1, 1, NOW + 1010)
    assert it.announcements(NOW + 1010, OTHERS, waits()) == [(1, ()), (2, ()), (3, ())]
    it.held(ONE, 1, 2, NOW + 1020)  # pushed: nobody is told
    assert it.announcements(NOW + 1069, OTHERS, waits()) == []


def test_an_answer_is_not_answered() -> None:
    it = Announcer(4)
    assert it.hear(3, [], NOW, nothing) == 0
    assert it.next_ms() is None


def test_batch_is_acknowledged_by_f_other_validators() -> None:
    seven = Announcer(7)
    seven.take_counts(1, (0, 0, 5, 0, 0, 0, 0))
    assert not seven.acknowledged(2, 5)
    assert not seven.take_counts(1, (0, 0, 5, 0, 0, 0, 0))
    assert seven.take_counts(6, (0, 0, 6, 0, 0, 0, 0))
    assert seven.acknowledged(2, 5)
    assert not seven.acknowledged(2, 6)
    assert Announcer(1).acknowledged(0, 1)
    four = Announcer(4)
    four.take_counts(1, (9,))  # a vote's counts may have any length
    assert four.acknowledged(0, 9)
    assert not four.acknowledged(1, 1)


def test_liar_that_announces_what_nobody_has_is_asked_for_64_digests_in_4_s() -> None:
    """It says at once that they are absent, and announces others, 20 times a second."""
    it = Announcer(4)
    ignored, asked, number = 0, 0, 0
    for at in range(NOW, NOW + 40_000, 50):
        digests = [digest(number + each) for each in range(64)]
        number += 64
        ignored += it.hear(3, digests, at, nothing)
        found = it.asks(at, OTHERS, nothing)
        assert {peer for peer, _ in found} <= {3}, "nobody else is troubled"
        asked += len(found)
        for _, each in found:
            it.absent(each, at)
        assert len(it._leads) <= announcing.PLACES_MAX
    assert asked == 64 * 10
    assert ignored == number - asked
    assert it.hear(1, [ONE], NOW + 40_000, nothing) == 0
    assert (1, ONE) in it.asks(NOW + 40_000, OTHERS, nothing), "the places are each peer's own"


def test_same_digest_again_and_again_is_looked_for_once() -> None:
    it = Announcer(4)
    assert [it.hear(3, [ONE], NOW + at, nothing) for at in range(3)] == [0, 1, 1]
    assert it.asks(NOW + 9, OTHERS, nothing) == [(3, ONE)]
    assert it.asks(NOW + 3999, OTHERS, nothing) == []
    assert it.hear(3, [ONE], NOW + 4000, nothing) == 0
    assert it.asks(NOW + 4000, OTHERS, nothing) == [(3, ONE)]


def test_peer_that_gives_what_it_announces_is_not_limited_by_places() -> None:
    it = Announcer(4)
    for number in range(1, 1000):
        assert it.hear(3, [digest(number)], NOW, nothing) == 0
        assert it.asks(NOW, OTHERS, nothing) == [(3, digest(number))]
        it.held(digest(number), 1, number, NOW)
