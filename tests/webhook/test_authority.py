"""The lease's arithmetic, on a clock of the test's own."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetward_webhook.sidecar.authority import Authority, boottime


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_there_is_no_authority_at_first(clock: Clock) -> None:
    authority = Authority(clock)
    assert not authority.live()
    assert authority.remaining == 0
    assert authority.lost_reason() == "no word from the hub yet; there was no authority lease yet"


def test_a_lease_counts_from_when_it_was_asked_for(clock: Clock) -> None:
    authority = Authority(clock)
    token = clock.now
    clock.now += 3
    authority.renewed(token, 5)
    assert authority.remaining == 2
    clock.now += 1.999
    assert authority.live()
    clock.now = token + 5
    assert not authority.live(), "at the very end it is over"


def test_a_lease_that_arrives_too_late_is_none(clock: Clock) -> None:
    authority = Authority(clock)
    token = clock.now
    clock.now += 7
    authority.renewed(token, 5)
    assert not authority.live()


def test_an_older_answer_changes_nothing(clock: Clock) -> None:
    authority = Authority(clock)
    clock.now = 103
    authority.renewed(103, 5)
    authority.renewed(100, 60)
    assert authority.remaining == 5


def test_a_newer_answer_may_shorten_the_lease(clock: Clock) -> None:
    authority = Authority(clock)
    authority.renewed(100, 60)
    clock.now = 101
    authority.renewed(101, 5)
    assert authority.remaining == 5


@pytest.mark.parametrize("token", [100.001, float("inf"), float("nan")])
def test_a_token_this_sidecar_cannot_have_sent_is_refused(clock: Clock, token: float) -> None:
    authority = Authority(clock)
    with pytest.raises(ValueError, match="lease was granted from"):
        authority.renewed(token, 5)
    assert not authority.live()


def test_the_reason_says_how_long_ago(clock: Clock) -> None:
    authority = Authority(clock)
    authority.heard()
    authority.renewed(100, 5)
    assert authority.lost_reason() == ""
    clock.now = 107.2
    assert authority.lost_reason() == "no word from the hub for 7.2 s; the last authority lease lapsed 2.2 s ago"
    authority.trouble("Connection refused")
    assert "for 7.2 s (Connection refused); the last" in authority.lost_reason()
    authority.said("withholds authority: it has lost sight")
    assert (
        authority.lost_reason()
        == "the hub withholds authority: it has lost sight; the last authority lease lapsed 2.2 s ago"
    )
    authority.renewed(107.2, 5)
    clock.now = 113
    assert "withholds" not in authority.lost_reason()


@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 20), st.floats(0.1, 10))))
def test_no_sequence_of_answers_outlasts_the_newest_request_by_more_than_its_lease(
    answers: list[tuple[float, float, float]],
) -> None:
    clock = Clock()
    authority = Authority(clock)
    newest = (float("-inf"), 0.0)
    for pause, delay, ttl in answers:
        clock.now += pause
        token = clock.now - delay
        authority.renewed(token, ttl)
        newest = max(newest, (token, ttl), key=lambda answer: answer[0]) if token != newest[0] else (token, ttl)
        assert authority.live() == (clock.now < newest[0] + newest[1])


def test_the_clock_goes_on_and_counts_suspension_where_it_can() -> None:
    before = boottime()
    assert boottime() >= before
    if hasattr(time, "CLOCK_BOOTTIME"):
        assert abs(boottime() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 1
