"""Sessions with the real model: prompts, corrections, propagation, several at once, restarts."""

import dataclasses
import threading
import time

import numpy as np
import pytest

from backend.errors import BadRequest, Conflict, MediaRefused, NotFound, TooManySessions
from backend.model import ModelService
from backend.media import MediaStore
from backend.session_manager import SessionManager
from backend.session_media import SessionOrigin
from backend.session_values import PropagationRequest, PropagationState, Prompts
from converters.masks import decode_mask, encode_mask, mask_area, mask_iou
from converters.types import Direction
from tests.backend.clock import Clock
from tests.backend.conftest import FRAME_COUNT, SIZE, picture
from tests.video_files import write_video

SECONDS = 120


def disc(index):
    width, height = SIZE
    rows, columns = np.mgrid[:height, :width]
    return (columns - 110 - 8 * index) ** 2 + (rows - 90 - 4 * index) ** 2 < 40**2


def iou(mask, truth):
    found = decode_mask(mask)
    return (found & truth).sum() / (found | truth).sum()


@pytest.fixture
def make_manager(settings, media_root, model):
    managers = []

    def make(*, used=model, clock=time.monotonic, **changes):
        changed = dataclasses.replace(settings, media_roots=(media_root,), **changes)
        service = ModelService(changed, lambda _: used)
        service.start()
        manager = SessionManager(changed, service, MediaStore(changed), clock=clock)
        managers.append(manager)
        return manager

    yield make
    for manager in managers:
        manager.stop()


@pytest.fixture
def origin(media_root):
    return SessionOrigin(reference=str(media_root / "n25.mp4"))


@pytest.fixture
def session(make_manager, origin):
    with make_manager().created(origin) as session:
        yield session


def click(session, frame_index, *points, object_id="a"):
    if object_id not in session.objects:
        session.set_object(object_id, [])
    said = [{"x": x, "y": y, "positive": positive} for x, y, positive in points]
    session.set_prompts(
        object_id, frame_index, Prompts.from_json({"points": said}, session.info)
    )


def propagate(session, **request):
    session.propagate(PropagationRequest(**request))
    assert session.wait_until_still(SECONDS)
    return session.propagation


def masks(session, object_id="a"):
    (track,) = [track for track in session.tracks() if track.object_id == object_id]
    return track.masks


def test_a_click_shows_the_object_and_a_second_one_encodes_nothing(session):
    click(session, 0, (110, 90, True))
    shown = session.preview_mask("a", 0)
    assert iou(shown.mask, disc(0)) > 0.8 and shown.score > 0
    encoded = session._video.encoded_frame_count
    click(session, 0, (110, 90, True), (120, 100, True))
    assert iou(session.preview_mask("a", 0).mask, disc(0)) > 0.8
    assert session._video.encoded_frame_count == encoded == 1


def test_a_box_and_points_go_together_and_a_mask_stands_alone(session):
    session.set_object("a", [])
    box = {"box": [70, 50, 151, 131], "points": [{"x": 110, "y": 90}]}
    session.set_prompts("a", 0, Prompts.from_json(box, session.info))
    shown = session.preview_mask("a", 0)
    assert iou(shown.mask, disc(0)) > 0.8
    counts = {"size": [shown.mask.height, shown.mask.width], "counts": shown.mask.counts}
    session.set_object("b", [])
    session.set_prompts("b", 0, Prompts.from_json({"mask": counts}, session.info))
    assert mask_iou(session.preview_mask("b", 0).mask, shown.mask) > 0.9
    with pytest.raises(BadRequest, match="stands alone"):
        Prompts.from_json({"mask": counts, **box}, session.info)


def test_propagation_follows_and_holds_the_mask_that_was_seen(session):
    click(session, 0, (110, 90, True))
    seen = session.preview_mask("a", 0).mask
    ended = propagate(session)
    assert (ended.state, ended.done_frames) == (PropagationState.DONE, FRAME_COUNT)
    found = masks(session)
    assert list(found) == list(range(FRAME_COUNT)) and found[0] == seen
    assert all(iou(mask, disc(index)) > 0.8 for index, mask in found.items())


@pytest.mark.parametrize(
    ("request_", "frames"),
    [
        ({}, range(3, 8)),
        ({"direction": Direction.BACKWARD}, range(0, 4)),
        ({"direction": Direction.BOTH}, range(0, 8)),
        ({"direction": Direction.BOTH, "frame_limit": 2}, range(1, 6)),
        ({"to_frame": 5}, range(3, 6)),
        ({"frame_limit": 1}, range(3, 5)),
        ({"direction": Direction.BACKWARD, "to_frame": 2}, range(2, 4)),
        ({"start_frame": 6}, range(6, 8)),
    ],
)
def test_it_goes_the_way_and_as_far_as_asked(session, request_, frames):
    click(session, 3, (134, 102, True))
    assert propagate(session, **request_).total_frames == len(frames)
    (track,) = session.tracks()
    assert list(track.scores) == list(frames)  # also where the object is not seen


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"start_frame": 1}, "start_frame 1 lies before the first prompt, frame 3"),
        ({"to_frame": 2}, "to_frame 2 lies before frame 3"),
        ({"to_frame": 8}, r"to_frame 8 must be in \[0, 8\)"),
        ({"to_frame": 5, "frame_limit": 1}, "give one of them"),
        ({"direction": Direction.BOTH, "to_frame": 5}, "both can have frame_limit"),
        ({"direction": Direction.BACKWARD, "start_frame": 4}, "after the last prompt"),
    ],
)
def test_what_cannot_be_tracked_is_refused_by_name(session, request_, message):
    with pytest.raises(BadRequest, match="nothing is marked yet"):
        session.propagate(PropagationRequest())
    click(session, 3, (134, 102, True))
    with pytest.raises(BadRequest, match=message):
        session.propagate(PropagationRequest(**request_))


def test_a_reader_gets_frames_as_they_come_each_once(session):
    click(session, 0, (110, 90, True))
    session.propagate(PropagationRequest())
    seen, serial = [], session.state()["serial"]
    while len(seen) < FRAME_COUNT:
        frames = session.frames_since(serial, timeout_seconds=SECONDS, limit=3)
        assert frames and len(frames) <= 3
        seen += [frame.frame_index for frame in frames]
        serial = frames[-1].serial
    assert seen == list(range(FRAME_COUNT))
    assert session.wait_until_still(SECONDS)
    assert session.frames_since(serial, timeout_seconds=SECONDS) == []


def test_a_correction_keeps_what_was_right_and_changes_what_follows(session):
    click(session, 0, (110, 90, True))
    propagate(session)
    before = dict(masks(session))
    truth = disc(4)
    half = truth & (np.mgrid[: SIZE[1], : SIZE[0]][1] < 142)
    said = encode_mask(half)
    prompts = Prompts.from_json(
        {"mask": {"size": [said.height, said.width], "counts": said.counts}}, session.info
    )
    session.set_prompts("a", 4, prompts)
    corrected = session.preview_mask("a", 4).mask
    assert iou(corrected, half) > 0.8
    propagate(session, start_frame=4)
    after = masks(session)
    assert all(after[index] == before[index] for index in range(4))
    assert after[4] == corrected
    assert after[5] != before[5] and mask_area(after[5]) < mask_area(before[5])


def test_points_on_a_tracked_frame_correct_its_mask(session):
    click(session, 0, (110, 90, True))
    propagate(session)
    tracked = masks(session)[4]
    click(session, 4, (10, 10, False))
    assert mask_iou(session.preview_mask("a", 4).mask, tracked) > 0.8
    session.undo()
    assert session.preview_mask("a", 4).mask == tracked
    session.redo()
    session.remove_prompts("a", 4)
    assert session.preview_mask("a", 4).mask == tracked


def test_undo_and_redo_give_the_same_masks_again(session):
    click(session, 0, (110, 90, True))
    first = session.preview_mask("a", 0)
    click(session, 0, (110, 90, True), (110, 60, False))
    second = session.preview_mask("a", 0)
    session.undo()
    assert session.preview_mask("a", 0).mask == first.mask
    session.redo()
    assert session.preview_mask("a", 0).mask == second.mask
    for _ in range(3):
        session.undo()
    assert not session.objects
    with pytest.raises(Conflict, match="nothing to undo"):
        session.undo()


def test_a_removed_object_comes_back_with_its_masks_and_a_new_one_of_its_id_without(session):
    click(session, 0, (110, 90, True))
    propagate(session)
    session.remove_object("a")
    assert session.tracks() == () and not session.frame_result(3).shown
    with pytest.raises(NotFound):
        session.preview_mask("a", 0)
    session.undo()
    assert len(masks(session)) == FRAME_COUNT
    session.remove_object("a")
    session.set_object("a", ["Dog"])
    (track,) = session.tracks()
    assert track.labels == ("Dog",) and not track.masks


def test_a_second_object_does_not_change_the_first(session):
    click(session, 0, (110, 90, True))
    propagate(session)
    before = dict(masks(session))
    click(session, 2, (10, 230, True), object_id="b")
    propagate(session)
    assert masks(session) == before
    assert min(session.tracks()[1].scores) == 2


def test_a_stopped_propagation_ends_and_can_be_resumed(session):
    click(session, 0, (110, 90, True))
    session.propagate(PropagationRequest())
    with pytest.raises(Conflict, match="stop it first"):
        session.propagate(PropagationRequest())
    assert session.frames_since(0, timeout_seconds=SECONDS)
    assert session.stop() and session.wait_until_still(SECONDS)
    ended = session.propagation
    assert ended.state in (PropagationState.STOPPED, PropagationState.DONE)
    if ended.state is PropagationState.STOPPED:
        session.resume()
        assert session.wait_until_still(SECONDS)
    assert session.propagation.done_frames == FRAME_COUNT
    assert len(masks(session)) == FRAME_COUNT
    assert not session.stop()
    with pytest.raises(Conflict, match="no propagation to resume"):
        session.resume()


def test_two_sessions_on_one_video_do_not_mix_but_share_features(make_manager, origin):
    manager = make_manager()
    with manager.created(origin) as one, manager.created(origin) as two:
        click(one, 0, (110, 90, True))
        click(two, 0, (300, 220, True))
        one.preview_mask("a", 0)
        two.preview_mask("a", 0)
        assert two._video.encoded_frame_count == 0
        one.propagate(PropagationRequest())
        two.propagate(PropagationRequest())
        assert one.wait_until_still(SECONDS) and two.wait_until_still(SECONDS)
        both = masks(one), two.tracks()[0].masks
    with manager.created(origin) as alone:
        click(alone, 0, (110, 90, True))
        propagate(alone)
        assert masks(alone) == both[0] != both[1]


def test_a_click_is_answered_while_the_session_propagates(session):
    click(session, 0, (110, 90, True))
    session.propagate(PropagationRequest())
    session.set_object("b")
    session.set_prompts("b", 7, Prompts.from_json({"box": [126, 78, 207, 159]}, session.info))
    assert iou(session.preview_mask("b", 7).mask, disc(7)) > 0.8
    assert session.wait_until_still(SECONDS)
    assert len(masks(session)) == FRAME_COUNT
    assert list(masks(session, "b")) == [7]


def test_prewarmed_frames_need_the_decoder_only(session):
    cached, pending = session.prewarm([2, 3])
    assert (cached, pending) == ([], [2, 3])
    done = threading.Event()
    while not all(map(session._video.has_features, (2, 3))):
        assert not done.wait(0.01)
    assert session.prewarm([2, 3]) == ([2, 3], [])
    encoded = session._video.encoded_frame_count
    click(session, 3, (134, 102, True))
    session.preview_mask("a", 3)
    assert session._video.encoded_frame_count == encoded == 2


# --- keeping -----------------------------------------------------------------


def test_a_session_survives_a_restart(make_manager, origin):
    first = make_manager()
    with first.created(origin) as session:
        click(session, 0, (110, 90, True))
        propagate(session, to_frame=5)
        click(session, 4, (110, 90, False))
        seen = session.preview_mask("a", 4)
        state, found = session.state(), dict(masks(session))
    first.stop()
    with make_manager().using(state["id"]) as again:
        restored = again.state()
        assert restored["objects"] == state["objects"]
        assert restored["propagation"] == state["propagation"]
        assert masks(again) == found
        assert again.preview_mask("a", 4) == seen
        click(again, 4, (110, 90, False), (142, 106, True))
        assert again.preview_mask("a", 4).mask is not None
        propagate(again, start_frame=6)
        assert all(iou(masks(again)[index], disc(index)) > 0.8 for index in (6, 7))


def test_what_a_restart_interrupts_can_be_resumed(make_manager, origin, model):
    reached, goes_on = threading.Event(), threading.Event()

    def open_video(files):
        video = model.open_video(files)
        sibling = video.sibling

        def slow_sibling():
            made = sibling()
            follow = made.follow

            def slow(*arguments, **options):
                for number, item in enumerate(follow(*arguments, **options)):
                    if number == 4:
                        reached.set()
                        goes_on.wait(SECONDS)
                    yield item

            made.follow = slow
            return made

        video.sibling = slow_sibling
        return video

    first = make_manager(used=dataclasses.replace(model, open_video=open_video))
    with first.created(origin) as session:
        click(session, 0, (110, 90, True))
        session.propagate(PropagationRequest())
        assert reached.wait(SECONDS)
        session_id = session.id
    stopping = threading.Thread(target=first.stop)
    stopping.start()
    goes_on.set()
    stopping.join(SECONDS)
    with make_manager().using(session_id) as again:
        assert again.propagation.state is PropagationState.INTERRUPTED
        done = again.propagation.done_frames
        assert 0 < done < FRAME_COUNT
        again.resume()
        assert again.wait_until_still(SECONDS)
        assert again.propagation.done_frames == FRAME_COUNT
        assert list(masks(again)) == list(range(FRAME_COUNT))


def test_a_session_on_changed_media_is_not_opened_again(make_manager, tmp_path):
    video = tmp_path / "mine.mp4"
    pictures = [picture(index) for index in range(4)]
    write_video(video, 4, size=SIZE, pictures=pictures)
    manager = make_manager()
    manager._media._settings = dataclasses.replace(
        manager._media._settings, media_roots=(tmp_path,)
    )
    with manager.created(SessionOrigin(reference=str(video))) as session:
        pass
    assert manager.close(session.id)
    write_video(video, 4, size=SIZE, pictures=pictures[::-1])
    with pytest.raises(Conflict, match="has changed"), manager.using(session.id):
        pass


def test_the_longest_unused_session_makes_room_and_comes_back(make_manager, origin):
    manager = make_manager(max_sessions=2)
    ids = []
    for _ in range(3):
        with manager.created(origin) as session:
            click(session, 0, (110, 90, True))
            ids.append(session.id)
    assert manager.open_count == 2
    with manager.using(ids[0]) as first:
        assert first.objects["a"].prompts
    assert manager.open_count == 2


def test_busy_sessions_are_not_closed_for_another(make_manager, origin):
    manager = make_manager(max_sessions=1)
    with manager.created(origin):
        with pytest.raises(TooManySessions, match="1 sessions are open and busy"):
            with manager.created(origin):
                pass


def test_idle_sessions_are_closed_and_deleted_ones_are_gone(make_manager, origin):
    manager = make_manager(session_idle_seconds=1e-6)
    with manager.created(origin) as session:
        manager.close_idle()
        assert manager.open_count == 1
    manager.close_idle()
    assert manager.open_count == 0
    with manager.using(session.id):
        pass
    manager.delete(session.id)
    for act in (manager.delete, lambda session_id: manager.using(session_id).__enter__()):
        with pytest.raises(NotFound):
            act(session.id)


def test_more_stored_sessions_than_may_be_are_forgotten_but_no_open_one(
    make_manager, origin, caplog
):
    manager = make_manager(max_stored_sessions=2)
    with manager.created(origin) as oldest:
        ids = []
        for _ in range(3):
            with manager.created(origin) as session:
                ids.append(session.id)
            manager.close(session.id)
    manager.close(oldest.id)
    for session_id in (oldest.id, ids[-1]):
        with manager.using(session_id):
            pass
    for session_id in ids[:-1]:
        with pytest.raises(NotFound), manager.using(session_id):
            pass
    assert f"session {ids[0]} is forgotten" in caplog.text
    assert "SAM2_MAX_STORED_SESSIONS" in caplog.text


def test_stored_sessions_over_their_bytes_are_forgotten_but_no_open_one(make_manager, origin):
    manager = make_manager(max_session_bytes=1, session_idle_seconds=1e-6)
    with manager.created(origin) as session:
        click(session, 0, (110, 90, True))
        manager.forget_surplus()
        click(session, 1, (112, 90, True))  # it is still there to be changed
    manager.close_idle()
    assert manager.of_video(origin.reference)
    manager.forget_surplus()
    assert not manager.of_video(origin.reference)


def test_others_on_the_task_are_counted(make_manager, origin):
    manager = make_manager()
    mine = dataclasses.replace(origin, task_id=5)
    with manager.created(mine) as one, manager.created(mine) as two, manager.created(origin):
        with manager.created(mine, is_stored=False):
            assert manager.others_on_task(one) == manager.others_on_task(two) == 1


def test_others_who_have_gone_are_not_counted_for_long(make_manager, origin):
    clock = Clock()
    manager = make_manager(clock=clock)
    mine = dataclasses.replace(origin, task_id=5)
    with manager.created(mine) as one:
        with manager.created(mine):
            clock.now += 1000
            assert manager.others_on_task(one) == 1
        clock.now += 60
        assert manager.others_on_task(one) == 1
        clock.now += 120
        assert manager.others_on_task(one) == 0


def test_a_failed_opening_leaves_no_place_taken(make_manager, tmp_path, media_root):
    manager = make_manager(max_sessions=1)
    with pytest.raises(MediaRefused):
        with manager.created(SessionOrigin(reference="/etc/passwd")):
            pass
    broken = media_root / "broken.mp4"
    broken.write_bytes(b"no video")
    with pytest.raises(ValueError), manager.created(SessionOrigin(reference=str(broken))):
        pass
    assert manager.open_count == 0
