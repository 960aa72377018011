"""Calls from the open editor: text areas, commands, and what comes back."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from backend.jobs.types import JobState
from backend.text_commands import HELP
from tests.backend.calls import (
    box,
    call,
    choice,
    draft,
    jobs_of,
    keyframe,
    result_of,
    saved,
    task,
    text,
    wait_for_jobs,
    wait_until,
)
from tests.backend.conftest import FRAME_COUNT
from tests.backend.quick_model import Hold


def annotation(*results, updated_at="2026-11-22T12:00:00Z", **more):
    return {"id": 5, "result": list(results), "updated_at": updated_at, **more}


def tracked(region):
    """First and last LS frame of the track."""
    frames = [item["frame"] for item in region["value"]["sequence"]]
    return frames[0], frames[-1]


def sentence(regions):
    (said,) = regions
    assert said["type"] == "textarea"
    return said["value"]["text"][0]


@pytest.fixture
def client(make_quick_client):
    return make_quick_client()


# --- the text area beside the video ------------------------------------------


def test_the_newest_of_draft_and_annotation_is_tracked(client):
    older, newer = "2026-11-22T12:00:00Z", "2026-11-22T14:00:00Z"
    for drafted, annotated, expected in ((newer, older, "d"), (older, newer, "a")):
        the_task = task(
            drafts=[draft(box("d"), updated_at=drafted)],
            annotations=[annotation(box("a"), updated_at=annotated)],
        )
        assert [r["id"] for r in result_of(client, call(the_task, text("track")))] == [expected]


def test_a_skipped_annotation_is_not_what_a_person_means(client, studio):
    the_task = task(annotations=[annotation(box("a"), was_cancelled=True)])
    studio.tasks[1] = the_task
    assert "nothing to track" in sentence(result_of(client, call(the_task, text("track"))))


def test_a_draft_that_the_call_did_not_bring_is_fetched(client, studio, quick):
    studio.tasks[1] = task(drafts=[draft(box("late"))])
    (region,) = result_of(client, call(task(), text("track")))
    assert region["id"] == "late" and tracked(region) == (1, FRAME_COUNT)
    assert any(asked.path.startswith("/api/tasks/1") for asked in studio.site.asked)


def test_without_a_box_a_sentence_says_what_to_do(client, studio, quick):
    studio.tasks[1] = task()
    said = result_of(client, call(task(), text("track", region_id="t9")))
    assert "draw a box" in sentence(said) and said[0]["id"] == "t9"
    assert quick.runs == [] and jobs_of(client) == []


def test_a_label_studio_that_does_not_answer_is_said(client, studio):
    answer = client.post("/predict", json=call(task(77), text("track")))
    assert answer.status_code == 422
    assert "task 77" in answer.json["detail"] and "could not be asked" in answer.json["detail"]


@pytest.mark.parametrize(
    ("typed", "frames"),
    [
        (["track"], (4, 8)), (["track 2"], (4, 6)), (["back"], (1, 4)), (["back 1"], (3, 4)),
        (["both"], (1, 8)), (["both 2"], (2, 6)), (["to 6"], (4, 6)), (["to 2"], (2, 4)),
        (["to 999999"], (4, 8)), (["back", "track"], (4, 8)),
    ],
)
def test_a_command_says_which_way_and_how_far(client, typed, frames):
    the_task = task(drafts=[draft(box("a", keyframe(4)))])
    (region,) = result_of(client, call(the_task, text(*typed)))
    assert tracked(region) == frames


def test_the_menu_fills_in_what_the_text_leaves_open(client):
    the_task = task(drafts=[draft(box("a", keyframe(4)))])
    (region,) = result_of(client, call(the_task, text("track"), choice("both", "sunny")))
    assert tracked(region) == (1, 8)


def test_the_same_command_again_is_answered_from_the_region_itself(client, quick):
    for typed in ("both", "both", "track"):
        drafted = box("a", keyframe(4)) if not quick.runs else region
        (region,) = result_of(client, call(task(drafts=[draft(drafted)]), text(typed)))
        expected = {"both": (1, 8), "track": (4, 8)}[typed]
        assert tracked(region) == expected
    assert len(quick.runs) == 2


@pytest.mark.parametrize("typed", ["help", "?", "HELP "])
def test_help_is_a_sentence_where_it_was_asked_for(client, typed, quick):
    assert sentence(result_of(client, call(task(drafts=[draft(box())]), text(typed)))) == HELP
    assert quick.runs == []


def test_unknown_text_is_answered_with_the_help_and_tracks_nothing(client, quick):
    said = sentence(result_of(client, call(task(drafts=[draft(box())]), text("dance <b>"))))
    assert "'dance <b>'" in said and HELP in said
    assert quick.runs == []


def test_remarks_in_another_text_area_stay_as_they_are(client):
    remark = text("it rains", region_id="r", name="remarks")
    said = result_of(client, call(task(), text("help", region_id="c"), remark))
    assert [r["id"] for r in said] == ["c"]


def test_a_menu_alone_asks_for_nothing(client, quick):
    assert result_of(client, call(task(drafts=[draft(box())]), choice("both"))) == []
    assert quick.runs == []


# --- stop --------------------------------------------------------------------


def test_stop_gives_what_there_is_and_it_counts_as_answered(client, quick):
    hold = quick.before_frame = Hold(3)
    drafted = task(drafts=[draft(box())])
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(result_of, client.application.test_client(),
                            call(drafted, text("track")))
        hold.wait()
        (region,) = result_of(client, call(drafted, text("track", "stop")))
        hold.release()
        (partial,) = first.result()
    assert tracked(region) == (1, 3)
    assert tracked(partial) == (1, 4)  # with the frame that was under way
    assert region["value"]["sequence"][-1]["enabled"] is False
    assert [job.state for job in jobs_of(client)] == [JobState.CANCELLED]
    # Nobody wants the rest, so that Submit does not begin it again.
    assert client.post("/webhook", json=saved(region)).json["status"] == "ignored"
    assert client.post("/webhook", json=saved(partial)).json["status"] == "queued"


def test_stop_without_anything_to_stop_is_said(client):
    assert "nothing to stop" in sentence(result_of(client, call(task(), text("stop"))))


def test_stop_on_one_region_leaves_the_jobs_of_others_alone(client, quick):
    hold = quick.before_frame = Hold(2)
    with ThreadPoolExecutor(2) as pool:
        a = pool.submit(result_of, client.application.test_client(), call(task(), box("a")))
        hold.wait()
        b = pool.submit(result_of, client.application.test_client(),
                        call(task(), box("b", label="Dog")))
        wait_until(lambda: len(jobs_of(client)) == 2)
        stopped = result_of(client, call(task(), box("a"), text("stop", region_id="a")))
        hold.release()
        assert tracked(a.result()[0]) == (1, 3)
        assert tracked(b.result()[0]) == (1, FRAME_COUNT)
    assert [(r["id"], r["type"]) for r in stopped] == [("a", "videorectangle"), ("a", "textarea")]


def test_a_stop_that_was_obeyed_does_not_keep_other_regions_from_being_tracked(client):
    context = (box("a"), text("stop", region_id="a"), box("b"))
    answer = result_of(client, call(task(), *context))
    assert [r["id"] for r in answer if r["type"] == "videorectangle"] == ["b"]


# --- text areas of regions ---------------------------------------------------


def test_each_region_is_tracked_as_its_own_text_says(client):
    context = (box("a", keyframe(4)), text("back", region_id="a"), box("b", keyframe(4)))
    answer = result_of(client, call(task(), *context))
    videos = {r["id"]: r for r in answer if r["type"] == "videorectangle"}
    assert tracked(videos["a"]) == (1, 4) and tracked(videos["b"]) == (4, 8)
    (kept,) = [r for r in answer if r["type"] == "textarea"]
    assert (kept["id"], kept["value"]["text"]) == ("a", ["back"])


def test_a_new_text_on_one_region_leaves_the_tracked_other_as_it_was(client, quick):
    first = result_of(client, call(task(), box("a", keyframe(4)), box("b", keyframe(4))))
    again = result_of(client, call(task(), *first, text("both", region_id="b")))
    videos = {r["id"]: r for r in again if r["type"] == "videorectangle"}
    assert videos["a"] == next(r for r in first if r["id"] == "a")
    assert tracked(videos["b"]) == (1, 8)
    assert quick.runs[-1] == ("b",)


def test_a_text_that_is_no_command_is_a_remark_and_kept(client):
    answer = result_of(client, call(task(), box("a"), text("brown dog", region_id="a")))
    assert tracked(answer[0]) == (1, FRAME_COUNT)
    assert answer[1]["value"]["text"] == ["brown dog"]


def test_help_on_a_region_is_said_there_and_the_region_kept(client, quick):
    drawn = box("a")
    answer = result_of(client, call(task(), drawn, text("help", region_id="a")))
    assert answer[0] == drawn and answer[1]["value"]["text"] == [HELP]
    assert quick.runs == []


# --- regions -----------------------------------------------------------------


def test_answered_regions_come_back_at_once_without_media_or_model(client, make_quick_client):
    first = result_of(client, call(task(), box("a"), box("b")))
    blind = make_quick_client(load=lambda _: 1 / 0)
    gone = task(data={"video": "/data/upload/1/gone.mp4"})
    assert result_of(blind, call(gone, *first)) == first
    assert len(jobs_of(client)) == 1


def test_only_the_region_with_a_new_prompt_is_tracked_again(client, quick):
    first = result_of(client, call(task(), box("a"), box("b", keyframe(2))))
    moved = first[0] | {"value": first[0]["value"] | {
        "sequence": [*first[0]["value"]["sequence"][:-1], keyframe(6, x=50)]}}
    again = result_of(client, call(task(), moved, first[1]))
    videos = {r["id"]: r for r in again}
    assert videos["b"] == first[1]
    assert 50 in [item["x"] for item in videos["a"]["value"]["sequence"]]
    assert quick.runs[-1] == ("a",)


def test_a_label_that_the_editor_changed_does_not_track_again(client, quick):
    (first,) = result_of(client, call(task(), box("a")))
    relabelled = first | {"value": first["value"] | {"labels": ["Dog"]}}
    assert result_of(client, call(task(), relabelled)) == [relabelled]
    assert len(quick.runs) == 1


def test_what_a_person_noted_on_a_region_is_kept(client):
    (region,) = result_of(client, call(task(), box("a", meta={"text": ["seen"]})))
    assert region["meta"]["text"] == ["seen"]
    other = box("a", meta={"text": ["seen again"]})
    (region,) = result_of(client, call(task(), other))
    assert region["meta"]["text"] == ["seen again"]


def test_calls_for_other_regions_of_a_task_do_not_disturb_a_job(client, quick):
    hold = quick.before_frame = Hold(2)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(result_of, client.application.test_client(), call(task(), box("a")))
        hold.wait()
        ghost = call(task())
        assert result_of(client, ghost) == []
        said = result_of(client, call(task(), text("help")))
        hold.release()
        assert tracked(first.result()[0]) == (1, FRAME_COUNT)
    assert sentence(said) == HELP
    assert [job.state for job in wait_for_jobs(client)] == [JobState.DONE]
