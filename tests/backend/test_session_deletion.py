"""A deleted session stays deleted, whoever is at work on it or opens it just then."""

import dataclasses
import threading

import pytest

from backend.errors import Conflict, NotFound
from backend.session_store import SessionStore, StoredFrame
from backend.session_values import PropagationRequest, Saved
from tests.backend.test_sessions import SECONDS, click, make_manager, origin  # noqa: F401


def assert_gone(manager, make_manager, session_id):  # noqa: F811
    for other in (manager, make_manager()):
        with pytest.raises(NotFound), other.using(session_id):
            pass


def test_who_is_at_work_on_it_changes_nothing_any_more(make_manager, origin):  # noqa: F811
    manager = make_manager()
    with manager.created(origin) as session:
        click(session, 0, (110, 90, True))
        click(session, 1, (118, 94, True))
        manager.delete(session.id)
        state = session.state()
        for change in (
            lambda: session.set_object("b"),
            lambda: click(session, 2, (126, 98, True)),
            lambda: session.remove_prompts("a", 1),
            lambda: session.remove_object("a"),
            session.undo,
            lambda: session.propagate(PropagationRequest()),
        ):
            with pytest.raises(Conflict, match="just been closed"):
                change()
        assert session.state() == state
        # Label Studio has taken it meanwhile, and that is not undone.
        session.note_saved(Saved("annotation", 5, 1.0, 2, 3))
    assert_gone(manager, make_manager, session.id)


def test_changes_and_tracking_that_race_with_it_bring_nothing_back(
    make_manager, origin, settings  # noqa: F811
):
    manager = make_manager()
    for _ in range(4):
        with manager.created(origin) as session:
            click(session, 0, (110, 90, True))
            session.propagate(PropagationRequest())
            begun = threading.Event()

            def work():
                with pytest.raises((Conflict, NotFound)):
                    for number in range(100_000):
                        session.set_object("a", [f"label {number}"])
                        begun.set()

            worker = threading.Thread(target=work)
            worker.start()
            assert begun.wait(SECONDS)
            manager.delete(session.id)
            worker.join(SECONDS)
            assert not worker.is_alive()
        assert_gone(manager, make_manager, session.id)
    assert not list(settings.data_folder.glob("session-memories/*"))


def test_who_opens_it_again_meanwhile_finds_nothing(make_manager, origin, model):  # noqa: F811
    opening, goes_on = threading.Event(), threading.Event()

    def open_video(files):
        opening.set()
        goes_on.wait(SECONDS)
        return model.open_video(files)

    first = make_manager()
    with first.created(origin) as session:
        pass
    first.stop()
    manager = make_manager(used=dataclasses.replace(model, open_video=open_video))
    ended = []

    def open_again():
        with pytest.raises(NotFound), manager.using(session.id):
            pass
        ended.append(True)

    opener = threading.Thread(target=open_again)
    opener.start()
    assert opening.wait(SECONDS)
    manager.delete(session.id)
    goes_on.set()
    opener.join(SECONDS)
    assert ended and manager.open_count == 0
    assert_gone(manager, make_manager, session.id)


def test_the_store_makes_no_session_of_a_change(tmp_path):
    store = SessionStore(tmp_path / "sessions.sqlite3")
    frame = StoredFrame(0, 1, {})
    store.create("one", {"origin": {}}, [frame], task_id=None)
    assert store.save("one", body={"origin": {"a": 1}}, frames=[frame])
    assert store.delete("one")
    assert not store.save("one", body={"origin": {}}, propagation={}, frames=[frame])
    assert store.load("one") is None and store.ids() == set()
    store.close()
