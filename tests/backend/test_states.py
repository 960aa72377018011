"""States lent to one borrower each; what is kept is bounded in number and time."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from backend.states import StateCache
from tests.backend.clock import Clock


class State:
    def __init__(self):
        self.closed = 0

    def close(self):
        self.closed += 1


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def cache(clock):
    return StateCache(max_idle=2, idle_seconds=10, clock=clock)


@pytest.fixture
def made():
    return []


@pytest.fixture
def make(made):
    def make():
        made.append(State())
        return made[-1]

    return make


def test_a_state_is_lent_again_under_its_key_alone(cache, make):
    with cache.borrowed("a", make) as first:
        pass
    with cache.borrowed("a", make) as again:
        assert again is first
    with cache.borrowed("b", make) as other:
        assert other is not first


def test_two_borrowers_at_a_time_get_a_state_each_and_one_is_kept(cache, make, made):
    with cache.borrowed("a", make) as first, cache.borrowed("a", make) as second:
        assert first is not second
    assert len(cache) == 1
    assert sorted(state.closed for state in made) == [0, 1]


def test_a_state_left_by_an_error_is_closed_and_not_lent_again(cache, make, made):
    with pytest.raises(KeyError), cache.borrowed("a", make):
        raise KeyError("x")
    assert made[0].closed == 1 and len(cache) == 0


def test_a_state_that_cannot_be_made_leaves_nothing(cache):
    with pytest.raises(ZeroDivisionError), cache.borrowed("a", lambda: 1 / 0):
        pass
    assert len(cache) == 0


def test_the_longest_unused_goes_when_there_are_too_many(cache, make, made):
    for key in ("a", "b", "a", "c"):
        with cache.borrowed(key, make):
            pass
    assert [state.closed for state in made] == [0, 1, 0]
    with cache.borrowed("a", make) as kept:
        assert kept is made[0]


def test_what_lies_unused_for_too_long_is_closed(cache, make, made, clock):
    for key, now in (("a", 0.0), ("b", 8.0)):
        clock.now = now
        with cache.borrowed(key, make):
            pass
    clock.now = 11.0
    cache.close_old()
    assert [state.closed for state in made] == [1, 0]


def test_after_closing_what_comes_back_is_closed_too(cache, make, made):
    with cache.borrowed("a", make):
        with cache.borrowed("b", make):
            pass
        cache.close()
        assert [state.closed for state in made] == [0, 1]
    assert [state.closed for state in made] == [1, 1] and len(cache) == 0


def test_many_threads_never_share_a_state(cache, make, made):
    lent = set()

    def work(number):
        for _ in range(100):
            with cache.borrowed(number % 3, make) as state:
                assert state.closed == 0 and state not in lent
                lent.add(state)
                lent.discard(state)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert sum(not state.closed for state in made) == len(cache) <= 2
    assert max(state.closed for state in made) == 1
