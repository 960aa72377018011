"""Turns on the device: one at a time, people first, nobody forgotten."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from backend.scheduler import DeviceScheduler, OneAtATime, Priority, in_turns
from tests.backend.calls import wait_until
from tests.backend.quick_model import SECONDS


def test_the_most_urgent_goes_first_and_equals_as_they_came():
    scheduler, order = DeviceScheduler(), []

    def take(name, priority):
        with scheduler.turn(priority):
            order.append(name)

    asked = [
        ("training", Priority.TRAINING), ("batch 1", Priority.BATCH), ("person 1", Priority.INTERACTIVE),
        ("batch 2", Priority.BATCH), ("webhook", Priority.WEBHOOK), ("person 2", Priority.INTERACTIVE),
    ]
    with ThreadPoolExecutor(len(asked)) as pool:
        with scheduler.turn(Priority.BATCH):
            for number, item in enumerate(asked, start=1):
                pool.submit(take, *item)
                wait_until(lambda: scheduler.waiting_count == number)
    assert order == ["person 1", "person 2", "webhook", "batch 1", "batch 2", "training"]


def test_one_holds_the_device_at_a_time():
    scheduler, inside, most = DeviceScheduler(), [], []

    def work(number):
        for _ in range(50):
            with scheduler.turn(Priority(number % 4)):
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert len(most) == 400 and set(most) == {1}
    assert scheduler.waiting_count == 0


def test_an_error_in_a_turn_gives_the_device_back():
    scheduler = DeviceScheduler()
    with pytest.raises(KeyError), scheduler.turn(Priority.BATCH):
        raise KeyError("x")
    with scheduler.turn(Priority.BATCH):
        pass


def test_one_that_is_interrupted_while_it_waits_holds_up_nobody():
    scheduler = DeviceScheduler()

    class Interrupted(BaseException):
        pass

    class Interrupting(threading.Condition):
        def wait_for(self, predicate, timeout=None):
            raise Interrupted

    waits = scheduler._condition
    scheduler._condition = Interrupting()
    with pytest.raises(Interrupted), scheduler.turn(Priority.INTERACTIVE):
        pass
    scheduler._condition = waits
    assert scheduler.waiting_count == 0
    with scheduler.turn(Priority.TRAINING):
        pass


def test_items_are_made_within_turns_and_closed_at_the_end():
    scheduler, closed = DeviceScheduler(), []

    def items():
        try:
            for number in range(5):
                assert scheduler._is_taken
                yield number
        finally:
            closed.append(True)

    made = in_turns(items(), lambda: scheduler.turn(Priority.BATCH))
    assert next(made) == 0 and not scheduler._is_taken
    assert list(made) == [1, 2, 3, 4] and closed == [True]
    given_up = in_turns(items(), lambda: scheduler.turn(Priority.BATCH))
    next(given_up)
    given_up.close()
    assert closed == [True, True] and not scheduler._is_taken


def test_each_item_asks_anew_how_urgent_it_is():
    asked = []

    def turn():
        asked.append(1)
        return DeviceScheduler().turn(Priority.BATCH)

    assert list(in_turns((letter for letter in "abc"), turn)) == ["a", "b", "c"]
    assert len(asked) == 4  # the last finds the end


def test_equal_work_is_done_one_after_the_other():
    equal, inside, most = OneAtATime(), [], []

    def work(_):
        with equal.doing("key", lambda: False):
            inside.append(1)
            most.append(len(inside))
            inside.pop()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(20)))
    assert set(most) == {1}


def test_urgent_work_does_not_wait_for_equal_work_and_other_work_never_does():
    equal, is_urgent = OneAtATime(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with equal.doing("key", lambda: False):
            with equal.doing("other", lambda: False), equal.doing("key", lambda: True):
                pass
            waiting = pool.submit(lambda: equal.doing("key", is_urgent.is_set).__enter__())
            is_urgent.set()
            waiting.result(SECONDS)
    with equal.doing("key", lambda: False):
        pass
