"""Regions that a session has made, when the editor sends them to /predict."""

import copy

import pytest

from converters.label_studio.lifespan import region_to_track
from converters.label_studio.video_vector import read_video_vector
from converters.masks import mask_iou
from sam2_model.video import open_frame_source
from tests.backend.calls import call, draft, jobs_of, keyframe, result_of, saved, task, text
from tests.backend.conftest import FRAME_COUNT
from tests.backend.test_sessions_api import VIDEO, change, create, propagate, put

BOXES = (
    '<View><Labels name="labels" toName="video"><Label value="Dog"/></Labels>'
    '<Video name="video" value="$video" framerate="25"/>'
    '<VideoRectangle name="box" toName="video"/><TextArea name="sam2" toName="video"/></View>'
)
VECTORS = (
    '<View><Video name="video" value="$video" framerate="25"/>'
    '<VideoVectorLabels name="vector" toName="video"><Label value="Dog"/></VideoVectorLabels>'
    "</View>"
)
CONFIGS = {"boxes": BOXES, "vectors": VECTORS}


@pytest.fixture
def asked():
    """(object id, frame index, has a mask) of the prompts of each run."""
    return []


@pytest.fixture
def client(make_client, model, asked):
    def track(state, prompts, *arguments, **options):
        prompts = list(prompts)
        asked.append(sorted((p.object_id, p.frame_index, p.mask is not None) for p in prompts))
        return model.track(state, prompts, *arguments, **options)

    return make_client(track=track)


def session_region(client, config, *, frame=0, **way):
    session = create(client, data={"video": VIDEO}, label_config=config)
    change(client, "PUT", f"{session}/objects/a", {"labels": ["Dog"]})
    click = {"points": [{"x": 110 + 8 * frame, "y": 90 + 4 * frame, "positive": True}]}
    put(client, session, frame=frame, body=click)
    propagate(client, session, **way)
    (region,) = client.get(f"{session}/regions").json["result"]
    return region


def ask(client, *results, config=BOXES, **of_task):
    return result_of(client, call(task(data={"video": VIDEO}, **of_task), *results, config=config))


def masks_of(region, media_root):
    with open_frame_source(media_root / "n25.mp4") as source:
        if region["type"] == "videorectangle":
            return region_to_track(region, source.info, 25).masks
        return read_video_vector(region, source.info, 25)[0]


def moved(region, position=-1):
    """A person has moved one keyframe a little."""
    region = copy.deepcopy(region)
    item = region["value"]["sequence"][position]
    for place in item.get("vertices") or [item]:
        place["x"] += 2
    return region


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_session_s_region_comes_back_as_it_was_and_is_not_tracked(client, asked, config):
    region = session_region(client, config)
    assert region["meta"]["sam2"]["frames"] == [0]
    assert ask(client, region, config=config) == [region]
    body = saved(region, data={"video": VIDEO}, config=config)
    assert client.post("/webhook", json=body).json["status"] == "ignored"
    assert asked == [] and jobs_of(client) == []


def test_a_command_leaves_it_too_until_something_is_drawn(client, asked):
    region = session_region(client, BOXES)
    assert ask(client, text("both"), drafts=[draft(region)]) == [region]
    assert asked == []


def test_it_comes_back_beside_a_region_that_is_tracked(client, asked):
    region = session_region(client, BOXES)
    drawn = {
        "id": "new", "from_name": "box", "to_name": "video", "type": "videorectangle",
        "value": {"labels": ["Dog"], "sequence": [keyframe(2)]},
    }
    answer = {r["id"]: r for r in ask(client, region, drawn)}
    assert answer["a"] == region and answer["new"]["origin"] == "prediction"
    assert asked == [[("new", 1, False)]]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_after_a_moved_keyframe_the_session_s_prompts_count_too(
    client, asked, media_root, config
):
    region = session_region(client, config)
    changed = moved(region)
    (answer,) = ask(client, changed, config=config)
    is_mask = config == VECTORS
    last = changed["value"]["sequence"][-1]["frame"] - 1
    assert asked == [[("a", 0, True), ("a", last, is_mask)]]
    before, after = masks_of(region, media_root), masks_of(answer, media_root)
    assert list(after) == list(range(FRAME_COUNT))
    assert mask_iou(after[0], before[0]) > 0.9
    assert ask(client, answer, config=config) == [answer]
    ask(client, moved(answer, 0), config=config)
    assert [frame for _, frame, _ in asked[-1]] == [0, last]
    assert len(asked) == 2


def test_frames_that_are_not_tracked_again_keep_the_session_s_masks(
    client, asked, media_root
):
    region = session_region(client, BOXES, frame=4, direction="both")
    before = masks_of(region, media_root)
    (answer,) = ask(client, moved(region))
    assert asked[0][0] == ("a", 4, True)
    after = masks_of(answer, media_root)
    assert list(after) == list(range(FRAME_COUNT))
    assert all(after[index] == before[index] for index in range(4))


@pytest.mark.parametrize(
    "stamp",
    [
        {"session": None, "frames": "x"}, {"session": 5, "frames": [True, "0", -1, 10**9, None]},
        {"session": {}, "frames": {}},
    ],
)
def test_a_damaged_stamp_leads_to_no_prompts_and_no_error(client, asked, stamp):
    region = moved(session_region(client, BOXES))
    region["meta"]["sam2"] = stamp
    (answer,) = ask(client, region)
    assert len(asked[0]) == 1 and answer["id"] == "a"
