"""A session that is opened again tracks on as if it had never been closed."""

import threading
import time

import pytest

from backend.session_memories import SessionMemories
from backend.session_values import PropagationRequest, PropagationState, Prompts
from converters.types import Direction
from tests.backend.clock import Clock
from tests.backend.conftest import FRAME_COUNT
from tests.backend.test_sessions import (  # noqa: F401
    SECONDS,
    click,
    make_manager,
    origin,
    propagate,
)

BOTH, BACKWARD = Direction.BOTH, Direction.BACKWARD


def box(session, frame_index, object_id, *corners):
    if object_id not in session.objects:
        session.set_object(object_id)
    prompts = Prompts.from_json({"box": list(corners)}, session.info)
    session.set_prompts(object_id, frame_index, prompts)


def mark(session):
    click(session, 2, (126, 98, True))
    box(session, 4, "b", 200, 20, 300, 120)  # of nothing: its course is what the model makes of it


def correct(session):
    click(session, 4, (110, 120, False), (150, 110, True))


WORK = {
    "forward": [mark, {"to_frame": 4}, None, {"start_frame": 5}],
    "backward": [mark, {"direction": BACKWARD, "to_frame": 2}, None,
                 {"direction": BACKWARD, "start_frame": 1}],
    "both ways, then a correction": [mark, {"direction": BOTH}, None, correct, {"start_frame": 4}],
    "a correction before and one after": [
        mark, {"direction": BOTH}, correct, {"start_frame": 4}, None,
        lambda session: click(session, 5, (142, 140, False)),
        {"direction": BACKWARD, "start_frame": 5}, {"start_frame": 5},
    ],
    "another object after": [
        lambda session: click(session, 2, (126, 98, True)), {"direction": BOTH}, None, mark,
        {"direction": BOTH},
    ],
}  # fmt: skip
"""What is done: marks, ways to track; None: the session is closed and opened again."""


def do(session, steps):
    for step in steps:
        propagate(session, **step) if isinstance(step, dict) else step(session)


def found(session):
    return session.tracks(), session.state()["objects"]


def close_by_restart(manager, make_manager, origin, clock):  # noqa: F811
    manager.stop()
    return make_manager()


def close_as_idle(manager, make_manager, origin, clock):  # noqa: F811
    clock.now += 10_000
    manager.close_idle()
    assert manager.open_count == 0
    return manager


def push_out(manager, make_manager, origin, clock):  # noqa: F811
    with manager.created(origin):
        assert manager.open_count == 1
    return manager


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("forward", close_by_restart),
        ("backward", push_out),
        ("both ways, then a correction", close_as_idle),
        ("a correction before and one after", close_by_restart),
        ("another object after", close_by_restart),
    ],
)
def test_frames_are_those_of_a_session_that_was_never_closed(
    make_manager, origin, name, close  # noqa: F811
):
    clock = Clock()
    manager = make_manager(clock=clock, max_sessions=1)
    steps = WORK[name]
    here = steps.index(None)
    with manager.created(origin) as session:
        do(session, [step for step in steps if step is not None])
        unbroken = found(session)
    with manager.created(origin) as session:
        do(session, steps[:here])
    manager = close(manager, make_manager, origin, clock)
    with manager.using(session.id) as again:
        assert again is not session and not again.state()["memories_lost"]
        do(again, steps[here + 1 :])
        assert found(again) == unbroken


def stopped_at(session, frame_count, way):
    """The session's propagation, stopped by a person once so many frames are there."""
    session.propagate(PropagationRequest(**way))
    end = time.monotonic() + SECONDS
    while session.propagation.done_frames < frame_count and time.monotonic() < end:
        session.frames_since(session.serial, timeout_seconds=0.05)
    session.stop()
    assert session.wait_until_still(SECONDS)


@pytest.mark.parametrize("way", [{}, {"direction": BOTH}], ids=str)
def test_one_that_was_stopped_in_its_midst_goes_on_there(make_manager, origin, way):  # noqa: F811
    manager = make_manager()
    with manager.created(origin) as session:
        mark(session)
        propagate(session, **way)
        unbroken = found(session)
    with manager.created(origin) as session:
        mark(session)
        stopped_at(session, 2, way)
        is_done = session.propagation.state is PropagationState.DONE  # the model was quick
    manager.stop()
    with make_manager().using(session.id) as again:
        if not is_done:
            again.resume()
            assert again.wait_until_still(SECONDS)
        assert again.propagation.state is PropagationState.DONE
        assert found(again) == unbroken


def test_what_lies_there_may_be_older_than_the_frames(
    make_manager, origin, settings  # noqa: F811
):
    """As a killed process leaves it: the frames of the store, memories of some before."""
    kept = SessionMemories(settings.data_folder / "session-memories", 2**30)
    manager = make_manager(save_seconds=1000.0)
    with manager.created(origin) as session:
        mark(session)
        propagate(session)
        unbroken = found(session)
    with manager.created(origin) as session:
        mark(session)
        session.propagate(PropagationRequest())
        while not kept.has(session.id):  # that of the first frame
            threading.Event().wait(0.005)
        early = kept.load(session.id)
        assert session.wait_until_still(SECONDS)
    manager.stop()
    kept.save(session.id, early)
    with make_manager().using(session.id) as again:
        assert found(again) == unbroken
        click(again, 6, (158, 140, False))
        propagate(again, start_frame=6)
        corrected = found(again)
    with make_manager().created(origin) as session:
        mark(session)
        propagate(session)
        click(session, 6, (158, 140, False))
        propagate(session, start_frame=6)
        assert corrected == found(session)


@pytest.mark.parametrize("spoil", ["missing", "broken", "another session's"])
def test_without_memories_it_is_opened_all_the_same_and_says_so(
    make_manager, origin, settings, caplog, spoil  # noqa: F811
):
    kept = SessionMemories(settings.data_folder / "session-memories", 2**30)
    manager = make_manager()
    with manager.created(origin) as other, manager.created(origin) as session:
        for each in (other, session):
            click(each, 0, (110, 90, True))
            propagate(each, to_frame=3)
    manager.stop()
    if spoil == "missing":  # as an older version left it
        kept.delete(session.id)
    else:
        kept.save(session.id, b"no memories" if spoil == "broken" else kept.load(other.id))
    with make_manager().using(session.id) as again:
        assert again.state()["memories_lost"] == (spoil == "missing")
        propagate(again, start_frame=4)
        assert again.state()["memories_lost"]
        assert len(again.tracks()[0].masks) == FRAME_COUNT
    assert "tracking goes on from the masks alone" in caplog.text


def test_a_deleted_session_leaves_none(make_manager, origin, settings):  # noqa: F811
    manager = make_manager()
    with manager.created(origin) as session:
        click(session, 0, (110, 90, True))
        propagate(session)
    folder = settings.data_folder / "session-memories"
    assert [path.name for path in folder.iterdir()] == [session.id]
    manager.delete(session.id)
    assert not list(folder.iterdir())


def test_a_session_that_is_not_stored_keeps_none(make_manager, origin, settings):  # noqa: F811
    with make_manager().created(origin, is_stored=False) as session:
        click(session, 0, (110, 90, True))
        propagate(session, to_frame=1)
    assert not (settings.data_folder / "session-memories").exists()


# --- the files ---------------------------------------------------------------


def test_the_longest_unused_make_room(tmp_path, caplog):
    memories = SessionMemories(tmp_path / "kept", 10)
    for number, name in enumerate("abc"):
        memories.save(name, b"1234"[: 4 if number < 2 else 2])
        time.sleep(0.02)  # file times are what is compared
    assert memories.load("a") == b"1234"
    memories.save("d", b"1234")
    assert [memories.has(name) for name in "abcd"] == [True, False, True, True]
    memories.save("d", b"123456789")
    assert [memories.has(name) for name in "abcd"] == [False, False, False, True]
    memories.save("d", b"12345678901")
    assert memories.load("d") is None and "SAM2_SESSION_MEMORY_MIB" in caplog.text


def test_what_belongs_to_no_session_is_deleted(tmp_path):
    memories = SessionMemories(tmp_path / "kept", 100)
    memories.keep_only({"a"})
    for name in ("a", "b"):
        memories.save(name, b"1")
    (tmp_path / "kept" / "a.123.part").write_bytes(b"1")  # its process was killed
    memories.keep_only({"a"})
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["a"]


def test_what_cannot_be_written_leaves_nothing_older(tmp_path):
    memories = SessionMemories(tmp_path / "kept", 2**40)
    memories.save("a", b"old")
    (tmp_path / "kept").rename(tmp_path / "moved")
    (tmp_path / "kept").write_text("no folder")
    memories.save("a", b"new")
    assert not memories.has("a")
