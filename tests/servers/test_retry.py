"""How long to wait and when to give up: pure functions of counts, times and a draw."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Retry
from pipeline.servers.retry import backoff, delay_before_next

RETRY = Retry(attempts=5, max_elapsed_s=100, base_delay_s=0.5, max_delay_s=8)


def test_the_longest_delay_doubles_up_to_its_maximum() -> None:
    """The bound of the delay is base * 2^(attempt - 1), never more than max_delay_s."""
    assert [backoff(n, RETRY, draw=lambda: 1.0) for n in range(1, 8)] == [0.5, 1, 2, 4, 8, 8, 8]


@given(st.integers(1, 10**9), st.floats(0, 1))
def test_the_jitter_is_full(attempt: int, drawn: float) -> None:
    """The delay is anywhere between nothing and the bound, for any attempt number, however large."""
    longest = backoff(attempt, RETRY, draw=lambda: 1.0)
    assert backoff(attempt, RETRY, draw=lambda: drawn) == pytest.approx(drawn * longest)
    assert 0 <= backoff(attempt, RETRY) <= 8


def test_attempts_are_counted() -> None:
    """After `attempts` failures there is no next try."""
    assert delay_before_next(4, 0, 0, RETRY, draw=lambda: 0.5) is not None
    assert delay_before_next(5, 0, 0, RETRY, draw=lambda: 0.5) is None
    assert delay_before_next(1, 0, 0, Retry(attempts=1)) is None


def test_a_busy_server_costs_time_not_attempts() -> None:
    """Overloads alone never use up the attempts; they do make the waits longer."""
    assert delay_before_next(0, 1, 0, RETRY, draw=lambda: 1.0) == 0.5
    assert delay_before_next(0, 1000, 0, RETRY, draw=lambda: 1.0) == 8


def test_time_runs_out() -> None:
    """No try is begun that could only start after max_elapsed_s."""
    assert delay_before_next(1, 0, 99.6, RETRY, draw=lambda: 1.0) is None
    assert delay_before_next(1, 0, 99.5, RETRY, draw=lambda: 1.0) == 0.5
    assert delay_before_next(0, 1, 101, RETRY, draw=lambda: 0.0) is None


@given(st.integers(0, 4), st.integers(0, 50), st.floats(0, 60), st.floats(0, 1))
def test_retry_after_is_a_floor(failures: int, overloads: int, asked: float, drawn: float) -> None:
    """Never sooner than the server asked, and not much later: the jitter comes on top."""
    delay = delay_before_next(failures, overloads, 0, RETRY, retry_after=asked, draw=lambda: drawn)
    assert delay is not None
    assert asked <= delay <= asked + 8


def test_a_long_wish_is_not_on_the_request_s_account() -> None:
    """A server that asks for more time than the request has left is busy; the row is not to blame."""
    delay = delay_before_next(1, 0, 0, RETRY, retry_after=1e6)
    assert delay is not None
    assert delay >= 1e6
