"""Stale frames of an export tracked again, with the real model on a real video."""

import copy
import json

import numpy as np
import pytest

from backend.cli import main
from backend.resegment import resegment_with
from converters.formats import open_source
from converters.geometry import pixel_to_percent_box
from converters.label_studio.config import parse_label_config
from converters.label_studio.exported import ResegmentRequest
from converters.label_studio.regions import track_to_video_region
from converters.masks import decode_mask, encode_mask, mask_box
from converters.tracks_json import save_tracks
from converters.types import Prompt, Track
from sam2_model.video import open_frame_source
from tests.backend.conftest import FRAME_COUNT, SIZE
from tests.converters.cases import annotated_video

XML = """<View><Video name="v" value="$video" framerate="25"/>
<VideoRectangle name="box" toName="v"/><Labels name="l" toName="v"><Label value="Car"/></Labels></View>"""
CONTROL = parse_label_config(XML).video_rectangles[0]
WIDTH, HEIGHT = SIZE


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch):
    for name in ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY", "SAM2_MODEL", "SAM2_DIRECTION"):
        monkeypatch.delenv(name, raising=False)
    # pytest's own log handlers stay as they are.
    monkeypatch.setattr("backend.cli.configure_logging", lambda *_, **__: None)


@pytest.fixture
def info(media_root):
    with open_frame_source(media_root / "n25.mp4") as source:
        return source.info


def disc(index):
    """The true mask of the moving disc in the video."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns - 110 - 8 * index) ** 2 + (rows - 90 - 4 * index) ** 2 < 40**2


def wrong(index):
    """What a tracker that lost the disc may have left."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:50, 10 + index : 60 + index] = True
    return mask


def iou(first, second):
    return (first & second).sum() / (first | second).sum()


def left_by_tracking(info, *, lost=(3, 4, 5)):
    masks = {i: encode_mask((wrong if i in lost else disc)(i)) for i in range(FRAME_COUNT)}
    track = Track("car", ("Car",), masks)
    region = track_to_video_region(
        track, control=CONTROL, info=info, framerate=25.0, keyframes="all"
    )
    return track, json.loads(json.dumps(region))


def moved_to_the_disc(region, index):
    """As the editor stores it when a person moves the box on a frame."""
    edited = copy.deepcopy(region)
    keyframe = next(k for k in edited["value"]["sequence"] if k["frame"] == index + 1)
    percent = pixel_to_percent_box(mask_box(encode_mask(disc(index))), (HEIGHT, WIDTH))
    keyframe.update(zip(("x", "y", "width", "height"), percent))
    return edited


def without_keyframes(region, *indices):
    edited = copy.deepcopy(region)
    frames = [index + 1 for index in indices]
    sequence = edited["value"]["sequence"]
    edited["value"]["sequence"] = [k for k in sequence if k["frame"] not in frames]
    return edited


def export_of(folder, *regions, video="/data/upload/1/0a1b2c3d-n25.mp4"):
    task = {"id": 7, "data": {"video": video}, "annotations": [{"id": 1, "result": list(regions)}]}
    (folder / "export.json").write_text(json.dumps([task]))
    (folder / "config.xml").write_text(XML)
    return folder / "export.json"


def convert(source, out, *options):
    config = source.parent / "config.xml"
    arguments = ["--to", "tracks", "--out", out, "--label-config", config, *options]
    return main(["convert", str(source), *map(str, arguments)])


def masks_in(path):
    (video,) = open_source(path)
    (track,) = video.tracks
    return dict(track.masks)


def test_frames_that_a_moved_box_made_stale_are_tracked_again_and_no_others(
    info, media_root, tmp_path, capsys
):
    track, region = left_by_tracking(info)
    # Every frame has a keyframe: those next to the moved one hem it in.
    edited = without_keyframes(moved_to_the_disc(region, 4), 3, 5)
    source = export_of(tmp_path, edited)
    options = ["--media-root", media_root, "--stale", "resegment", "--device", "cpu"]
    assert convert(source, tmp_path / "out.json", *options, "--model", "demo") == 0
    found = masks_in(tmp_path / "out.json")
    assert sorted(found) == list(range(FRAME_COUNT))
    for index in range(FRAME_COUNT):
        if index in (3, 4, 5):
            assert iou(decode_mask(found[index]), disc(index)) > 0.85
        else:
            assert found[index] == track.masks[index]
    assert capsys.readouterr().out == (
        "1 video, 8 frames, 1 object, 8 masks; changed: "
        "3 masks missing or out of date, tracked again\n"
    )


def requested(info, masks, stale, boxes=()):
    prompts = tuple(Prompt("car", index, box=box) for index, box in boxes)
    return ResegmentRequest("/data/upload/1/n25.mp4", info, "car", prompts, masks, tuple(stale))


def counting(tracker):
    runs = []

    def counted(source, prompts, frame_range, **options):
        runs.append((prompts, frame_range))
        return tracker(source, prompts, frame_range, **options)

    return counted, runs


def box_on(index):
    return mask_box(encode_mask(disc(index)))


def test_one_run_a_region_goes_both_ways_from_the_drawn_boxes(info, media_root, tracker):
    track, _ = left_by_tracking(info)
    fresh = {index: track.masks[index] for index in (0, 7)}
    counted, runs = counting(tracker)
    frames = []
    resegment = resegment_with(counted, media_root=media_root, progress=frames.append)
    asked = requested(info, fresh, range(1, 7), [(3, box_on(3)), (5, box_on(5))])
    found = resegment(asked)
    assert sorted(found) == list(range(1, 7))
    assert all(iou(decode_mask(mask), disc(index)) > 0.85 for index, mask in found.items())
    ((prompts, frame_range),) = runs
    assert [(p.frame_index, p.box) for p in prompts] == [(3, box_on(3)), (5, box_on(5))]
    assert (frame_range.start, frame_range.stop) == (1, 7) and sum(frames) == 6
    # The other half of a split asks the same again.
    assert dict(resegment(asked)) == dict(found) and len(runs) == 1


def test_frames_without_a_drawn_box_start_from_the_masks_beside_them(info, media_root, tracker):
    fresh = {index: encode_mask(disc(index)) for index in (0, 1, 5, 6)}
    counted, runs = counting(tracker)
    resegment = resegment_with(counted, media_root=media_root)
    found = resegment(requested(info, fresh, (2, 3, 4, 7), [(7, box_on(7))]))
    assert sorted(found) == [2, 3, 4, 7]
    assert all(iou(decode_mask(mask), disc(index)) > 0.85 for index, mask in found.items())
    ((prompts, _),) = runs
    assert [(p.frame_index, p.mask is not None) for p in prompts] == [
        (1, True), (5, True), (7, False),
    ]  # fmt: skip


def test_frames_that_the_editor_never_shows_part_no_stretch(info, media_root, tracker):
    """At 12.5 frames a second in the config every second frame is shown."""
    counted, runs = counting(tracker)
    resegment = resegment_with(counted, media_root=media_root)
    resegment(requested(info, {0: encode_mask(disc(0))}, (2, 4, 6), [(4, box_on(4))]))
    assert [p.frame_index for p in runs[0][0]] == [4]


def test_nothing_to_start_from_gives_nothing(info, media_root, tracker):
    counted, runs = counting(tracker)
    assert dict(resegment_with(counted, media_root=media_root)(requested(info, {}, (2, 3)))) == {}
    assert runs == []


def test_an_object_that_is_not_found_again_is_counted_as_dropped(
    info, media_root, tmp_path, capsys, monkeypatch
):
    _, region = left_by_tracking(info)
    source = export_of(tmp_path, moved_to_the_disc(region, 4))
    nothing_there = lambda source, prompts, frame_range: iter(())  # noqa: E731
    monkeypatch.setattr("backend.model.load_tracker", lambda settings: nothing_there)
    options = ["--media-root", media_root, "--stale", "resegment"]
    assert convert(source, tmp_path / "out.json", *options) == 0
    assert capsys.readouterr().out == (
        "1 video, 8 frames, 1 object, 7 masks; dropped: 1 masks (missing or out of date)\n"
    )


def test_both_halves_of_a_split_track_once(info, media_root, tmp_path, monkeypatch, tracker):
    _, region = left_by_tracking(info)
    counted, runs = counting(tracker)
    monkeypatch.setattr("backend.model.load_tracker", lambda settings: counted)
    source = export_of(tmp_path, moved_to_the_disc(region, 4))
    out = tmp_path / "coco.json"
    options = ["--media-root", media_root, "--stale", "resegment", "--val", 0.5, "--to", "coco"]
    assert convert(source, out, *options, "--quiet") == 0
    written = [json.loads((tmp_path / f"coco_{side}.json").read_text()) for side in ("train", "val")]
    assert sorted(len(document["annotations"]) for document in written) == [0, 8]
    assert len(runs) == 1


# --- mistakes -----------------------------------------------------------------


def test_a_video_that_is_not_there_is_named_with_the_option(info, media_root, tmp_path, capsys):
    _, region = left_by_tracking(info)
    source = export_of(tmp_path, moved_to_the_disc(region, 4), video="/data/upload/1/gone.mp4")
    options = ["--media-root", media_root, "--stale", "resegment", "--device", "cpu"]
    assert convert(source, tmp_path / "out.json", *options) == 2
    message = capsys.readouterr().err
    assert "video '/data/upload/1/gone.mp4' of object 'car' is not in" in message
    assert "--media-root" in message and not (tmp_path / "out.json").exists()


def test_a_video_outside_the_media_root_is_not_opened(info, media_root, tmp_path, capsys):
    _, region = left_by_tracking(info)
    (tmp_path / "root").mkdir()
    hostile = f"/data/local-files/?d=../../{media_root.name}/n25.mp4"
    source = export_of(tmp_path, moved_to_the_disc(region, 4), video=hostile)
    options = ["--media-root", tmp_path / "root", "--stale", "resegment", "--device", "cpu"]
    assert convert(source, tmp_path / "out.json", *options) == 2
    assert "is not in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stale", "resegment"], "say where with --media-root"),
        (["--model", "demo"], "--model is for --stale resegment alone"),
        (["--checkpoint", "x.pt"], "--checkpoint is for --stale resegment alone"),
        (["--device", "cpu", "--stale", "leave-out"], "--device is for --stale resegment alone"),
        (["--stale", "resegment", "--media-root", ".", "--model", "sam3"], "'sam3' is not known"),
        (["--stale", "resegment", "--media-root", ".", "--checkpoint", "/none.pt"], "no such check"),
    ],
)
def test_options_that_do_not_go_together_are_refused(info, tmp_path, capsys, options, message):
    source = export_of(tmp_path, left_by_tracking(info)[1])
    assert convert(source, tmp_path / "out.json", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_other_formats_have_no_stale_frames(info, media_root, tmp_path, capsys):
    track, _ = left_by_tracking(info)
    save_tracks(tmp_path / "tracks.json", [annotated_video("v", info=info, tracks=[track])])
    (tmp_path / "config.xml").write_text(XML)
    options = ["--media-root", media_root, "--stale", "resegment"]
    assert convert(tmp_path / "tracks.json", tmp_path / "out.json", *options) == 2
    assert "--stale resegment is for Label Studio exports" in capsys.readouterr().err
