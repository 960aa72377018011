"""`convert`: every format into every other, images, options, and what is said of it."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.cli import _parser, main
from backend.convert import ConvertOptions, convert
from backend.data_set_media import locate, media_infos, save_images
from backend.media_folder import find_media
from converters.coco import save_coco
from converters.davis import load_davis, save_davis
from converters.formats import open_source, recognise
from converters.frames import write_frames
from converters.indexed_png import write_indices
from converters.masks import decode_mask
from converters.report import Report
from converters.sav import load_sav, save_sav
from converters.selection import Selection
from converters.tracks_json import load_tracks, save_tracks
from converters.types import Track
from converters.youtube_vis import save_youtube_vis
from tests.converters.cases import annotated_video, constant_rate_info, moving_track
from tests.video_files import index_picture, shown_index, write_video

INFO = constant_rate_info(10, width=96, height=64)
LEFT = moving_track(INFO, [0, 1, 2, 6, 7, 8, 9], object_id="a", labels=("Car",), speed=0.0)
VIDEOS = tuple(
    annotated_video(name, info=INFO, tracks=[LEFT, moving_track(INFO, [4], object_id="b", labels=("Dog",))])
    for name in ("one", "two")
)
SOURCES = {
    "coco": (save_coco, "in.json"),
    "youtube-vis": (save_youtube_vis, "in.json"),
    "tracks": (save_tracks, "in.json"),
    "davis": (save_davis, "in"),
    "sav": (save_sav, "in"),
}


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch):
    for name in ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY", "SAM2_MODEL", "SAM2_DIRECTION"):
        monkeypatch.delenv(name, raising=False)
    # pytest's own log handlers stay as they are.
    monkeypatch.setattr("backend.cli.configure_logging", lambda *_, **__: None)


@pytest.fixture
def tracks(tmp_path):
    save_tracks(tmp_path / "tracks.json", VIDEOS)
    return tmp_path / "tracks.json"


def run(source, to, out, *options):
    return main(["convert", str(source), "--to", to, "--out", str(out), *map(str, options)])


def masks_of(path):
    return {
        (video.name, track.labels[0], frame): decode_mask(mask)
        for video in open_source(path)
        for track in video.tracks
        for frame, mask in track.masks.items()
    }


@pytest.mark.parametrize("to", SOURCES)
@pytest.mark.parametrize("source", SOURCES)
def test_any_format_becomes_any_other_with_the_same_masks(tmp_path, capsys, source, to):
    save, name = SOURCES[source]
    save(tmp_path / name, VIDEOS)
    out = tmp_path / "out" / ("x" if to in ("davis", "sav") else "x.json")
    assert run(tmp_path / name, to, out) == 0
    assert recognise(out) == to
    expected, found = masks_of(tmp_path / name), masks_of(out)
    assert len(expected) == 16 and expected.keys() == found.keys()
    for key, mask in expected.items():
        np.testing.assert_array_equal(mask, found[key])
    captured = capsys.readouterr()
    assert captured.out == "2 videos, 20 frames, 4 objects, 16 masks\n"
    # No progress bar where nobody watches.
    assert captured.err == ""


def test_options_reach_the_data_set_and_the_summary_says_what_was_dropped(tracks, tmp_path, capsys):
    out = tmp_path / "coco.json"
    options = ["--every", 2, "--category", "Car=Auto", "--category", "Dog=", "--categories", "Bus,Auto"]
    assert run(tracks, "coco", out, *options, "--min-area", 10, "--polygons") == 0
    document = json.loads(out.read_text())
    assert [category["name"] for category in document["categories"]] == ["Bus", "Auto"]
    assert len(document["images"]) == 10 and len(document["annotations"]) == 8
    assert isinstance(document["annotations"][0]["segmentation"], list)
    assert capsys.readouterr().out == (
        "2 videos, 10 frames, 2 objects, 8 masks; dropped: 2 objects (all labels left out by the "
        "category map), 10 frames (not selected), 6 masks (on frames not selected)\n"
    )


def test_quiet_says_nothing(tracks, tmp_path, capsys):
    assert run(tracks, "coco", tmp_path / "x.json", "--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_compressed_youtube_vis_and_sav_folders(tracks, tmp_path):
    assert run(tracks, "youtube-vis", tmp_path / "y.json", "--compressed", "--quiet") == 0
    annotation = json.loads((tmp_path / "y.json").read_text())["annotations"][0]
    assert isinstance(annotation["segmentations"][0]["counts"], str)
    assert run(tracks, "sav", tmp_path / "s", "--sav-layout", "folders", "--quiet") == 0
    assert (tmp_path / "s/Annotations_6fps/one/001/00004.png").is_file()


# --- splits -------------------------------------------------------------------


@pytest.fixture
def many(tmp_path):
    info = constant_rate_info(1)
    videos = [
        annotated_video(f"v{i}", info=info, tracks=[moving_track(info, [0], labels=(f"L{i % 3}",))])
        for i in range(12)
    ]
    save_tracks(tmp_path / "many.json", videos)
    return tmp_path / "many.json"


@pytest.mark.parametrize(
    ("to", "out", "train", "val"),
    [
        ("tracks", "x.json", "x_train.json", "x_val.json"),
        ("sav", "x", "x/sav_train", "x/sav_val"),
    ],
)
def test_a_split_writes_each_video_to_one_side(many, tmp_path, to, out, train, val):
    assert run(many, to, tmp_path / out, "--val", 0.4, "--seed", 5, "--quiet") == 0
    sides = [{video.name for video in open_source(tmp_path / side)} for side in (train, val)]
    assert sides[0] | sides[1] == {f"v{i}" for i in range(12)} and not sides[0] & sides[1]
    assert 0 < len(sides[1]) < 10


def test_category_ids_mean_the_same_on_both_sides(many, tmp_path):
    assert run(many, "coco", tmp_path / "x.json", "--val", 0.1, "--seed", 1, "--quiet") == 0
    both = [json.loads((tmp_path / f"x_{side}.json").read_text()) for side in ("train", "val")]
    assert both[0]["categories"] == both[1]["categories"]
    assert [c["name"] for c in both[0]["categories"]] == ["L0", "L1", "L2"]


def test_davis_keeps_both_sides_in_one_folder(many, tmp_path):
    assert run(many, "davis", tmp_path / "d", "--val", 0.4, "--seed", 5, "--quiet") == 0
    sides = [(tmp_path / f"d/ImageSets/2017/{side}.txt").read_text().split() for side in ("train", "val")]
    assert sorted(sides[0] + sides[1]) == sorted(f"v{i}" for i in range(12))
    assert len(list(load_davis(tmp_path / "d"))) == 12
    # Labels of the first side are not lost when the second is written.
    assert {t.labels for v in load_davis(tmp_path / "d") for t in v.tracks} == {("L0",), ("L1",), ("L2",)}


# --- images -------------------------------------------------------------------


def shown(path):
    with Image.open(path) as image:
        return shown_index(np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    ("to", "out", "images"),
    [
        ("coco", "out/x.json", "out/images"),
        ("youtube-vis", "out/x.json", "out/images"),
        ("davis", "out", "out/JPEGImages/Full-Resolution"),
        ("sav", "out", "out/JPEGImages_24fps"),
    ],
)
def test_images_are_taken_out_of_the_videos(tracks, tmp_path, to, out, images):
    media = tmp_path / "media"
    media.mkdir()
    for name in ("one", "two"):
        write_video(media / f"{name}.mp4", 10, size=(96, 64))
    options = ["--images", "--media-root", media, "--every", 3, "--jpeg-quality", 90]
    assert run(tracks, to, tmp_path / out, *options, "--quiet") == 0
    names = sorted(p.relative_to(tmp_path / images) for p in (tmp_path / images).rglob("*.jpg"))
    assert [str(n) for n in names] == [f"{v}/{i:05d}.jpg" for v in ("one", "two") for i in (0, 3, 6, 9)]
    for name in names:
        assert shown(tmp_path / images / name) == int(name.stem)
    # And the data set names them.
    for video in open_source(tmp_path / out):
        assert all((tmp_path / images / name).is_file() for name in video.file_names)


def test_images_that_are_there_are_copied_byte_for_byte(tmp_path):
    videos = [dataclasses.replace(VIDEOS[0], file_names=tuple(f"x/{i}.jpg" for i in range(10)))]
    save_coco(tmp_path / "in.json", videos)
    write_frames(
        tmp_path, ((i, index_picture(i, 96, 64)) for i in range(10)), dict(enumerate(videos[0].file_names))
    )
    assert run(tmp_path / "in.json", "davis", tmp_path / "d", "--images", "--quiet") == 0
    for index in range(10):
        copied = tmp_path / f"d/JPEGImages/Full-Resolution/one/{index}.jpg"
        assert copied.read_bytes() == (tmp_path / f"x/{index}.jpg").read_bytes()
    (video,) = load_davis(tmp_path / "d")
    assert video.file_names == tuple(f"one/{i}.jpg" for i in range(10))


def test_images_that_convert_wrote_are_found_without_a_media_root(tmp_path):
    save_tracks(tmp_path / "t.json", VIDEOS[:1])
    write_video(tmp_path / "one.mp4", 10, size=(96, 64))
    coco = tmp_path / "coco/a.json"
    assert run(tmp_path / "t.json", "coco", coco, "--images", "--quiet", "--media-root", tmp_path) == 0
    assert run(coco, "youtube-vis", tmp_path / "y/a.json", "--images", "--quiet") == 0
    written = sorted((tmp_path / "coco/images").rglob("*.jpg"))
    assert [shown(path) for path in written] == list(range(10))
    for path in written:
        copied = tmp_path / "y/images" / path.relative_to(tmp_path / "coco/images")
        assert copied.read_bytes() == path.read_bytes()


def test_images_of_a_sav_video_are_those_of_its_own_frame_numbers(tmp_path):
    """SA-V has masks on every fourth frame of a video of 24 a second."""
    save_sav(tmp_path / "in", [annotated_video("v", info=INFO, tracks=[LEFT])])
    path = tmp_path / "in/v_manual.json"
    document = json.loads(path.read_text())
    del document["masklet_frame_step"]
    document["video_frame_count"] = 37.0
    path.write_text(json.dumps(document))
    write_video(tmp_path / "in/v.mp4", 37, size=(96, 64))
    options = ["--images", "--media-root", tmp_path / "in", "--quiet"]
    assert run(tmp_path / "in", "davis", tmp_path / "d", *options) == 0
    images = sorted((tmp_path / "d/JPEGImages/Full-Resolution/v").iterdir())
    assert (
        [shown(image) for image in images] == [int(image.stem) for image in images] == list(range(0, 37, 4))
    )


@pytest.mark.parametrize(
    ("count", "size", "message"),
    [
        (12, (96, 64), "has 10 frames, its media 12"),
        (10, (64, 96), r"has \(96, 64\) pixels, its media \(64, 96\)"),
    ],
)
def test_a_video_that_is_another_is_refused(tracks, tmp_path, capsys, count, size, message):
    for name in ("one", "two"):
        write_video(tmp_path / f"{name}.mp4", count, size=size)
    assert run(tracks, "coco", tmp_path / "x.json", "--images") == 2
    assert re.search(message, capsys.readouterr().err)


# --- mistakes -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.json", "--to", "coco", "--out", "x.json"], "no such file or folder"),
        (["tracks.json", "--to", "coco", "--out", "tracks.json"], "is the source itself"),
        (["tracks.json", "--to", "coco", "--out", "."], "is a folder, coco is written to a file"),
        (["tracks.json", "--to", "coco", "--out", "x.json", "--every", "0"], "every=0 must be >= 1"),
        (["tracks.json", "--to", "coco", "--out", "x.json", "--val", "2"], "fraction 2.0 must be in"),
        (["tracks.json", "--to", "davis", "--out", "x", "--polygons"], "--polygons is for coco alone"),
        (["tracks.json", "--to", "coco", "--out", "x.json", "--compressed"], "for youtube-vis alone"),
        (["tracks.json", "--to", "coco", "--out", "x.json", "--categories", "Car"], "'Dog' is not in"),
        (["tracks.json", "--to", "coco", "--out", "x.json", "--images"], "neither images"),
        (["tracks.json", "--to", "label-studio", "--out", "x.json"], "needs the label config"),
        (["tracks.json", "--to", "coco", "--out", "x.json", "--media-url", "u"], "--media-url is for"),
        (["tracks.json", "--to", "coco", "--out", "x.json", "--keyframes", "all"], "--keyframes is for"),
        (["tracks.json", "--to", "davis", "--out", "x", "--sav-layout", "folders"], "for sav alone"),
        (
            ["tracks.json", "--to", "sav", "--out", "x", "--polygon-tolerance", "2"],
            "--polygon-tolerance is for label-studio alone",
        ),
        (["empty.json", "--to", "coco", "--out", "x.json"], "empty.json gives no video"),
        (["empty.json", "--to", "davis", "--out", "x"], "empty.json gives no video"),
        (["empty.json", "--to", "sav", "--out", "x"], "empty.json gives no video"),
        (["bad.json", "--to", "coco", "--out", "x.json", "--strict"], "videos[0].info.width: must be >= 1, is 0"),
    ],
)
def test_a_mistake_is_said_in_a_line_and_leaves_nothing(
    tracks, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    bad = json.loads(tracks.read_text())
    bad["videos"][0]["info"]["width"] = 0
    Path("bad.json").write_text(json.dumps(bad))
    save_tracks("empty.json", [])
    before = tracks.read_bytes()
    assert main(["convert", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.out == ""
    assert tracks.read_bytes() == before
    assert not Path("x.json").exists() and not Path("x").exists()


@pytest.mark.parametrize("pair", ["Car", "=x"])
def test_a_renaming_that_is_none_is_refused(pair, capsys):
    with pytest.raises(SystemExit):
        main(["convert", "x", "--to", "coco", "--out", "y", "--category", pair])
    assert "must be OLD=NEW" in capsys.readouterr().err


def test_a_video_name_cannot_reach_outside_the_media_root(tmp_path):
    write_video(tmp_path / "secret.mp4", 10, size=(96, 64))
    (tmp_path / "media").mkdir()
    names = tuple(f"x/{i}.jpg" for i in range(10))
    save_tracks(tmp_path / "t.json", [dataclasses.replace(VIDEOS[0], name="../secret", file_names=names)])
    options = ConvertOptions(
        tmp_path / "t.json", "coco", tmp_path / "x.json", images=True, media_root=tmp_path / "media"
    )
    with pytest.raises(FileNotFoundError, match="neither images"):
        convert(options, Report())


HOSTILE_NAMES = ["../../etc/passwd", "../secret.jpg", "a/../../secret.jpg", "/etc/passwd.jpg", "a\0.jpg"]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_image_names_that_climb_out_of_the_media_root_are_refused(tmp_path, name):
    (tmp_path / "media").mkdir()
    write_frames(tmp_path, [(0, index_picture(0, 96, 64))], {0: "secret.jpg"})
    names = (name, *(f"{i}.jpg" for i in range(1, 10)))
    video = dataclasses.replace(VIDEOS[0], file_names=names)
    with pytest.raises(ValueError, match="must lie in the image folder"):
        locate(tmp_path / "media", video)
    with pytest.raises(ValueError, match="must lie in the image folder"):
        save_images(tmp_path / "media", tmp_path / "out", video, {0: "x.jpg"}, quality=95)
    assert not (tmp_path / "out").exists()


def test_images_that_are_links_out_of_the_media_root_are_refused(tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "media"
    names = [f"v/{i}.jpg" for i in range(10)]
    write_frames(outside, ((i, index_picture(i, 96, 64)) for i in range(10)), dict(enumerate(names)))
    root.mkdir()
    (root / "v").symlink_to(outside / "v")
    video = dataclasses.replace(VIDEOS[0], file_names=tuple(names))
    with pytest.raises(ValueError, match="'v/0.jpg' leads out of"):
        locate(root, video)
    with pytest.raises(ValueError, match="'v/0.jpg' leads out of"):
        save_images(root, tmp_path / "out", video, {0: "x.jpg"}, quality=95)
    # The root itself may be a link.
    (tmp_path / "link").symlink_to(outside)
    assert locate(tmp_path / "link", video)[9] == tmp_path / "link/v/9.jpg"


@pytest.mark.parametrize("name", ["../one", "/etc/hostname", "a\0"])
def test_video_names_that_lead_out_of_the_media_root_are_not_found(tmp_path, name):
    write_video(tmp_path / "one.mp4", 10, size=(96, 64))
    (tmp_path / "media").mkdir()
    with pytest.raises(FileNotFoundError, match="neither images"):
        locate(tmp_path / "media", dataclasses.replace(VIDEOS[0], name=name))


def test_an_image_that_stands_for_two_frames_is_written_twice(tmp_path):
    write_frames(tmp_path, ((i, index_picture(i, 96, 64)) for i in (0, 1)), {0: "a.jpg", 1: "b.jpg"})
    media = ["a.jpg", "b.jpg", "a.jpg"]
    info = constant_rate_info(3, width=96, height=64)
    video = annotated_video("v", info=info, tracks=[moving_track(info, [0])])
    names = {i: f"v/{i}.jpg" for i in range(3)}
    save_images(tmp_path, tmp_path / "out", video, names, media=media, quality=95)
    assert [shown(tmp_path / "out" / names[i]) for i in range(3)] == [0, 1, 0]


def test_no_label_needs_a_default(tmp_path):
    track = moving_track(INFO, [1], labels=())
    save_tracks(tmp_path / "t.json", [annotated_video(info=INFO, tracks=[track])])
    options = ConvertOptions(tmp_path / "t.json", "sav", tmp_path / "s")
    with pytest.raises(ValueError, match="has no label"):
        convert(options, Report(strict=True))
    selection = Selection(default_label="thing")
    convert(dataclasses.replace(options, out=tmp_path / "s2", selection=selection), Report())
    (video,) = load_sav(tmp_path / "s2")
    assert [t.labels for t in video.tracks] == [("thing",)]


@pytest.mark.parametrize(
    ("to", "options"), [("sav", []), ("sav", ["--sav-layout", "folders"]), ("davis", []), ("coco", [])]
)
def test_a_refused_write_leaves_no_folder_behind(tmp_path, capsys, to, options):
    track = moving_track(INFO, [1], labels=())
    save_tracks(tmp_path / "label.json", [annotated_video("bad", info=INFO, tracks=[track])])
    out = tmp_path / "not/yet/there" / ("x" if to != "coco" else "x.json")
    assert run(tmp_path / "label.json", to, out, *options, "--strict") == 2
    assert "has no label" in capsys.readouterr().err
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize(("to", "options"), [("sav", ["--sav-layout", "folders"]), ("davis", [])])
def test_a_video_that_is_refused_half_way_leaves_the_others_whole(
    tmp_path, capsys, monkeypatch, to, options
):
    save_tracks(tmp_path / "in.json", VIDEOS)
    whole = 10 if to == "davis" else 20  # PNGs of the first video: one an object in SA-V
    written = []

    def full_disk(path, indices):
        if len(written) == whole + 5:
            raise OSError("no space left")
        written.append(path)
        write_indices(path, indices)

    monkeypatch.setattr(f"converters.{to}.write_indices", full_disk)
    (tmp_path / "there").mkdir()
    assert run(tmp_path / "in.json", to, tmp_path / "there/x", *options) == 2
    assert "no space left" in capsys.readouterr().err
    folders = {p.name for p in (tmp_path / "there").rglob("*") if p.is_dir()}
    assert "one" in folders and "two" not in folders


def test_what_was_there_before_stays_when_a_write_is_refused(tracks, tmp_path, capsys):
    (tmp_path / "d/Annotations/Full-Resolution/one").mkdir(parents=True)
    (tmp_path / "d/Annotations/Full-Resolution/one/00000.png").write_bytes(b"mine")
    (tmp_path / "d/empty").mkdir()
    assert run(tracks, "davis", tmp_path / "d") == 2
    assert "is not empty: write elsewhere" in capsys.readouterr().err
    assert (tmp_path / "d/Annotations/Full-Resolution/one/00000.png").read_bytes() == b"mine"
    assert (tmp_path / "d/empty").is_dir()


@pytest.mark.parametrize("to", ["coco", "davis"])
def test_a_video_given_as_the_source_is_refused_for_what_it_is(tmp_path, capsys, to):
    write_video(tmp_path / "clip.mp4", 3)
    assert run(tmp_path / "clip.mp4", to, tmp_path / "x") == 2
    message = capsys.readouterr().err
    assert "clip.mp4: is a video (mp4); a data set is a JSON file (COCO, " in message
    assert "or a folder (DAVIS, SA-V, a Label" in message and not (tmp_path / "x").exists()


def test_every_option_of_every_command_has_a_help_text():
    def actions(parser):
        for action in parser._actions:
            yield action
            if isinstance(action.choices, dict):
                for inner in action.choices.values():
                    yield from actions(inner)

    without = [
        action.option_strings or action.dest
        for action in actions(_parser())
        if action.help is None and not isinstance(action.choices, dict)
    ]
    assert without == []


def test_progress_counts_the_masks(tracks, tmp_path):
    done = []
    convert(ConvertOptions(tracks, "tracks", tmp_path / "x.json"), Report(progress=done.append))
    assert sum(done) == 16


# --- Label Studio -------------------------------------------------------------

CONFIG = """<View><Video name="v" value="$video" framerate="25"/>
<VideoRectangle name="box" toName="v"/><Labels name="l" toName="v"><Label value="Car"/><Label value="Dog"/></Labels></View>"""


def test_media_is_found_by_the_path_in_the_url(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("clip 1.mp4", "a/clip 1.mp4"):
        write_video(tmp_path / name, 10 if name[0] == "c" else 5, size=(96, 64))
    known = media_infos(tmp_path)
    for media, frame_count in {
        "/data/upload/3/0a1b2c3d-clip%201.mp4": 10,
        "https://example.org/x/clip%201.mp4?token=1": 10,
        "/data/local-files/?d=some/clip%201.mp4": 10,
        # As much of the path as there is.
        "/data/local-files/?d=x/a/clip%201.mp4": 5,
        "s3://bucket/a/clip 1.mp4": 5,
    }.items():
        assert known(media).frame_count == frame_count, media
    assert known("/data/other.mp4") is None and known("") is None and known("/data/..") is None


@pytest.mark.parametrize(
    "media, file",
    [
        ("/data/upload/1/0a1b2c3d-my_clip_1.mp4", "my clip (1).mp4"),
        ("/data/upload/1/0a1b2c3d-abc.mp4", "a+b&c.mp4"),
        ("/data/upload/1/0a1b2c3d-e.mp4", "e\u0301.mp4"),  # as macOS writes an é
        ("/data/upload/1/0a1b2c3d-caf%C3%A9.mp4", "cafe\u0301.mp4"),
        ("/data/upload/1/0a1b2c3d-clip.mp4", "clip.MP4"),
        ("/data/upload/1/0a1b2c3d-clip_aB3dE6g.mp4", "clip.mp4"),  # the name was taken
        (f"/data/upload/1/0a1b2c3d-{'x' * 63}_aB3dE6g.mp4", f"{'x' * 90} (2).mp4"),  # cut off
        ("s3://bucket/a#1.mp4", "a#1.mp4"),
        ("s3://bucket/sub/what?.mp4", "sub/what?.mp4"),
        ("gs://bucket/100%25.mp4", "100%25.mp4"),
        ("C:\\clips\\a.mp4", "a.mp4"),
        ("C:\\clips\\a.mp4", "clips/a.mp4"),
        ("\\\\server\\share\\sub\\a.mp4", "sub/a.mp4"),
        ("/data/local-files/?d=dir%5Cfile.mp4", "dir/file.mp4"),
        ("/data/local-files/?d=dir%5Cfile.mp4", "dir\\file.mp4"),
        ("/mnt/clips/a#1.mp4", "a#1.mp4"),
        ("  https://example.org/a.mp4 \n", "a.mp4"),
        ("https://example.org/a%231.mp4", "a#1.mp4"),
        ("/data/clip%201.mp4", "clip%201.mp4"),  # as a downloader may save it
    ],
)
def test_media_is_found_by_what_became_of_its_name(tmp_path, media, file):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    (tmp_path / "another.mp4").write_bytes(b"x")
    assert find_media(tmp_path, media) == path


@pytest.mark.parametrize(
    "media, file",
    [
        ("s3://bucket/a%20b.mp4", "a b.mp4"),  # a key is as it is
        ("s3://bucket/a#1.mp4", "a"),
        ("/data/upload/1/0a1b2c3d-clip_aB3dE6g.mp4", "clip 2.mp4"),
        ("/data/upload/1/clip_aB3dE6g.mp4", "clip.mp4"),  # no upload
        ("/data/" + "x" * 5000 + ".mp4", "x.mp4"),
    ],
)
def test_media_of_another_name_is_not_found(tmp_path, media, file):
    (tmp_path / file).write_bytes(b"x")
    assert find_media(tmp_path, media) is None


def test_the_very_name_comes_before_one_that_would_become_it(tmp_path):
    for name in ("my_clip_1.mp4", "my clip (1).mp4"):
        (tmp_path / name).write_bytes(b"x")
    assert find_media(tmp_path, "/data/upload/1/0a1b2c3d-my_clip_1.mp4") == tmp_path / "my_clip_1.mp4"


def test_two_files_that_a_name_may_mean_are_named(tmp_path):
    for name in ("my clip(1).mp4", "my clip1.mp4"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"'0a1b2c3d-my_clip1.mp4' may be .*my clip\(1\).* or "):
        find_media(tmp_path, "/data/upload/1/0a1b2c3d-my_clip1.mp4")


@pytest.mark.parametrize("name", ["one.MP4", "one.ts", "one.wmv", "one.webm", "one.M2TS", "one"])
def test_a_video_is_found_by_its_name_whatever_its_suffix(tmp_path, name):
    write_video(tmp_path / "x.mp4", 10, size=(96, 64)).rename(tmp_path / name)
    (tmp_path / "one.txt").write_text("not a video")
    Image.new("RGB", (96, 64)).save(tmp_path / "one.jpg")  # its thumbnail
    assert locate(tmp_path, VIDEOS[0]) == tmp_path / name


def test_what_was_looked_for_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"'my_clip\.mp4' of 's3://b/my_clip\.mp4' nor images"):
        locate(tmp_path, VIDEOS[0], ["s3://b/my_clip.mp4"])
    Image.new("RGB", (96, 64)).save(tmp_path / "0.jpg")
    frames = ["s3://b/0.jpg", "s3://b/1.jpg", "s3://b/2.jpg"]
    with pytest.raises(FileNotFoundError, match=r"'1\.jpg' of .*\(2 files are missing\)"):
        locate(tmp_path, VIDEOS[0], frames)


def test_images_that_are_turned_are_written_upright_and_others_as_they_are(tmp_path):
    """Readers of COCO take or leave the tag: without one, masks fit for all of them."""
    names = tuple(f"x/{i}.jpg" for i in range(10))
    save_coco(tmp_path / "in.json", [dataclasses.replace(VIDEOS[0], file_names=names)])
    (tmp_path / "x").mkdir()
    for index, name in enumerate(names):
        picture = Image.fromarray(index_picture(index, 96, 64))
        turned = Image.Exif()
        turned[0x0112] = 3
        picture = picture.transpose(Image.ROTATE_180) if index % 2 else picture
        picture.save(tmp_path / name, quality=95, exif=turned if index % 2 else b"")
    out = tmp_path / "out/a.json"
    assert run(tmp_path / "in.json", "coco", out, "--images", "--quiet") == 0
    for index, name in enumerate(names):
        copied = tmp_path / "out/images" / name
        assert (copied.read_bytes() == (tmp_path / name).read_bytes()) == (index % 2 == 0)
        with Image.open(copied) as image:
            assert image.getexif().get(0x0112, 1) == 1
            assert shown_index(np.asarray(image)) == index


def test_masks_of_pictures_as_they_are_stored_are_refused(tmp_path):
    names = tuple(f"x/{i}.jpg" for i in range(10))
    save_coco(tmp_path / "in.json", [dataclasses.replace(VIDEOS[0], file_names=names)])
    (tmp_path / "x").mkdir()
    turned = Image.Exif()
    turned[0x0112] = 6
    for name in names:
        Image.new("RGB", (96, 64)).save(tmp_path / name, exif=turned)
    with pytest.raises(ValueError, match=r"has \(96, 64\) pixels, its media \(64, 96\) as .*EXIF"):
        convert(ConvertOptions(tmp_path / "in.json", "coco", tmp_path / "out/a.json", images=True), Report())


@pytest.mark.parametrize("suffix", [".webp", ".bmp", ".tiff", ".avif", ".PNG"])
@pytest.mark.parametrize("to", ["coco", "davis"])
def test_images_of_any_kind_are_written(tmp_path, suffix, to):
    names = tuple(f"x/{i}{suffix}" for i in range(10))
    save_coco(tmp_path / "in.json", [dataclasses.replace(VIDEOS[0], file_names=names)])
    write_frames(tmp_path, ((i, index_picture(i, 96, 64)) for i in range(10)), dict(enumerate(names)))
    out = tmp_path / ("out" if to == "davis" else "out/a.json")
    assert run(tmp_path / "in.json", to, out, "--images", "--quiet") == 0
    written = sorted(p for p in (tmp_path / "out").rglob("*") if p.suffix in (suffix, ".jpg"))
    assert [shown(path) for path in written] == list(range(10))


@pytest.mark.parametrize("media", ["../secret.jpg", "/data/local-files/?d=../secret.jpg", "x/\0.jpg"])
def test_media_outside_the_root_is_not_found(tmp_path, media):
    (tmp_path / "secret.jpg").write_bytes(b"")
    (tmp_path / "root").mkdir()
    assert find_media(tmp_path / "root", media) is None


def test_tracks_become_label_studio_tasks_and_come_back(tracks, tmp_path, capsys):
    pytest.importorskip("converters.label_studio.tasks")
    (tmp_path / "config.xml").write_text(CONFIG)
    for name in ("one", "two"):
        write_video(tmp_path / f"{name}.mp4", 10, size=(96, 64))
    options = ["--label-config", tmp_path / "config.xml", "--media-url", "/data/local-files/?d={name}.mp4"]
    assert run(tracks, "label-studio", tmp_path / "tasks.json", *options) == 0
    assert capsys.readouterr().out == "2 videos, 20 frames, 4 objects, 16 masks\n"
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    assert [task["data"]["video"] for task in tasks] == [
        "/data/local-files/?d=one.mp4",
        "/data/local-files/?d=two.mp4",
    ]
    for number, task in enumerate(tasks, start=1):
        # As if a person had taken the predictions over.
        task["id"] = number
        task["annotations"] = [{"id": number, "result": task["predictions"][0]["result"]}]
    (tmp_path / "export.json").write_text(json.dumps(tasks))
    options = ["--label-config", tmp_path / "config.xml", "--media-root", tmp_path]
    assert run(tmp_path / "export.json", "davis", tmp_path / "d", *options, "--images", "--quiet") == 0
    for name, image in [(p.name, shown(p)) for p in (tmp_path / "d").rglob("*.jpg")]:
        assert name == f"{image:05d}.jpg"
    assert len(list((tmp_path / "d").rglob("*.jpg"))) == 20
    assert run(tmp_path / "export.json", "tracks", tmp_path / "back.json", *options) == 0
    assert capsys.readouterr().out == "2 videos, 20 frames, 4 objects, 16 masks\n"
    for before, after in zip(VIDEOS, load_tracks(tmp_path / "back.json")):
        assert after.info.frame_times_seconds == pytest.approx(before.info.frame_times_seconds)
        for old, new in zip(before.tracks, after.tracks):
            assert (new.labels, dict(new.masks)) == (old.labels, dict(old.masks))


def test_predictions_are_read_when_asked_and_else_named(tmp_path):
    save_tracks(tmp_path / "t.json", VIDEOS[:1])
    tasks = tmp_path / "tasks.json"
    written = ConvertOptions(
        tmp_path / "t.json", "label-studio", tasks, label_config=CONFIG, media_url="{name}.mp4"
    )
    convert(written, Report())
    back = ConvertOptions(tasks, "tracks", tmp_path / "back.json", label_config=CONFIG)
    with pytest.raises(ValueError, match="gives no video; dropped: 1 tasks .*, but predictions"):
        convert(back, Report())
    assert not (tmp_path / "back.json").exists()
    convert(dataclasses.replace(back, results=("annotations", "predictions")), Report())
    assert [m.tolist() for m in masks_of(tmp_path / "back.json").values()] == [
        decode_mask(mask).tolist() for track in VIDEOS[0].tracks for mask in track.masks.values()
    ]
    with pytest.raises(ValueError, match="sources="):
        convert(dataclasses.replace(back, results=("notes",)), Report())


def test_keyframes_of_tasks_are_thinned_or_all_as_asked(tracks, tmp_path):
    (tmp_path / "config.xml").write_text(CONFIG)
    options = ["--label-config", tmp_path / "config.xml", "--media-url", "{name}.mp4", "--quiet"]
    counts = {}
    for name, more in {
        "thin": [],
        "exact": ["--keyframe-min-iou", 1],
        "all": ["--keyframes", "all"],
    }.items():
        assert run(tracks, "label-studio", tmp_path / f"{name}.json", *options, *more) == 0
        (first, _) = json.loads((tmp_path / f"{name}.json").read_text())
        counts[name] = len(first["predictions"][0]["result"][0]["value"]["sequence"])
    assert counts["thin"] < counts["exact"] <= counts["all"] == 7
    assert run(tracks, "label-studio", tmp_path / "x.json", *options, "--keyframe-min-iou", 2) == 2


def test_masks_on_images_go_to_the_control_that_is_asked_for(tracks, tmp_path, capsys):
    (tmp_path / "config.xml").write_text(
        """<View><Image name="i" valueList="$images"/>
        <BrushLabels name="b" toName="i"><Label value="Car"/><Label value="Dog"/></BrushLabels>
        <PolygonLabels name="p" toName="i"><Label value="Car"/><Label value="Dog"/></PolygonLabels></View>"""
    )
    options = ["--label-config", tmp_path / "config.xml", "--media-url", "{file_name}", "--quiet"]
    options += ["--image-control"]
    points = {}
    for tolerance in (0, 1, 3):
        out = tmp_path / f"{tolerance}.json"
        more = ["p", "--polygon-tolerance", tolerance]
        assert run(tracks, "label-studio", out, *options, *more) == 0
        results = json.loads(out.read_text())[0]["predictions"][0]["result"]
        assert {result["type"] for result in results} == {"polygonlabels"}
        points[tolerance] = sum(len(result["value"]["points"]) for result in results)
    assert points[0] > points[1] > points[3]
    assert run(tracks, "label-studio", tmp_path / "x.json", *options, "q") == 2
    assert "'q'" in capsys.readouterr().err and not (tmp_path / "x.json").exists()


@pytest.fixture
def kinds(tmp_path):
    """An export of two tasks: one with all kinds of results, one with predictions alone."""
    save_tracks(tmp_path / "t.json", VIDEOS)
    tasks = tmp_path / "tasks.json"
    options = ConvertOptions(
        tmp_path / "t.json", "label-studio", tasks, label_config=CONFIG, media_url="{name}.mp4"
    )
    convert(options, Report())
    first, second = json.loads(tasks.read_text())
    car, dog = first["predictions"][0]["result"]
    first |= {"id": 1, "annotations": [{"id": 1, "result": [car, dog]}]}
    first |= {"drafts": [{"id": 2, "result": [dog]}]}
    first["predictions"][0]["result"] = [car]
    tasks.write_text(json.dumps([first, second | {"id": 2}]))
    (tmp_path / "config.xml").write_text(CONFIG)
    return tasks


@pytest.mark.parametrize(
    ("results", "labels", "dropped"),
    [
        (None, [["Car", "Dog"]], "1 tasks (it has no annotations, but predictions)"),
        ("annotations", [["Car", "Dog"]], "1 tasks (it has no annotations, but predictions)"),
        ("drafts", [["Dog"]], "1 tasks (it has no drafts, but predictions)"),
        ("predictions", [["Car"], ["Car", "Dog"]], None),
        ("annotations,predictions", [["Car", "Dog"], ["Car", "Dog"]], None),
        ("drafts,predictions", [["Dog"], ["Car", "Dog"]], None),
        ("predictions,annotations", [["Car"], ["Car", "Dog"]], None),
    ],
)
def test_the_first_kind_of_results_that_a_task_has_is_converted(
    kinds, tmp_path, capsys, results, labels, dropped
):
    options = ["--label-config", tmp_path / "config.xml"]
    options += [] if results is None else ["--results", results]
    assert run(kinds, "tracks", tmp_path / "back.json", *options) == 0
    videos = list(load_tracks(tmp_path / "back.json"))
    assert [[label for t in video.tracks for label in t.labels] for video in videos] == labels
    said = capsys.readouterr().out
    assert (f"dropped: {dropped}" in said) if dropped else ("dropped" not in said)


@pytest.mark.parametrize("results", ["", "notes", "annotations,", "Annotations", "annotations drafts"])
def test_kinds_of_results_that_are_none_are_refused(kinds, tmp_path, capsys, results):
    with pytest.raises(SystemExit) as stopped:
        run(kinds, "tracks", tmp_path / "back.json", "--results", results)
    assert stopped.value.code == 2
    assert "must be of annotations, drafts, predictions" in capsys.readouterr().err


def test_label_studio_tasks_can_name_an_image_a_frame(tmp_path):
    pytest.importorskip("converters.label_studio.tasks")
    config = """<View><Image name="i" valueList="$images"/>
    <BrushLabels name="b" toName="i"><Label value="Car"/><Label value="Dog"/></BrushLabels></View>"""
    options = ConvertOptions(
        tmp_path / "t.json", "label-studio", tmp_path / "tasks.json",
        label_config=config, media_url="https://example.org/{file_name}",
    )  # fmt: skip
    save_tracks(tmp_path / "t.json", VIDEOS[:1])
    convert(options, Report())
    (task,) = json.loads((tmp_path / "tasks.json").read_text())
    assert task["data"]["images"][9] == "https://example.org/one/00009.jpg"
    assert len(task["predictions"][0]["result"]) == 8

    # Back again, with the frames that lie under the end of their URLs.
    pictures = ((i, index_picture(i, 96, 64)) for i in range(10))
    write_frames(tmp_path / "media", pictures, {i: f"one/{i:05d}.jpg" for i in range(10)})
    task |= {"id": 1, "annotations": [{"id": 1, "result": task["predictions"][0]["result"]}]}
    (tmp_path / "export.json").write_text(json.dumps([task]))
    back = ConvertOptions(
        tmp_path / "export.json", "sav", tmp_path / "s", images=True, media_root=tmp_path / "media"
    )
    report = convert(back, Report())
    assert (report.frames, report.masks) == (10, 8)
    (video,) = load_sav(tmp_path / "s")
    for index, name in enumerate(video.file_names):
        assert (tmp_path / "s/JPEGImages_24fps" / name).read_bytes() == (
            tmp_path / f"media/one/{index:05d}.jpg"
        ).read_bytes()


def test_an_object_on_no_frame_is_counted_not_sent_to_label_studio(tmp_path):
    pytest.importorskip("converters.label_studio.tasks")
    tracks = [*VIDEOS[0].tracks, Track("never", ("Car",), {})]
    save_tracks(tmp_path / "t.json", [dataclasses.replace(VIDEOS[0], tracks=tuple(tracks))])
    options = ConvertOptions(
        tmp_path / "t.json", "label-studio", tmp_path / "tasks.json",
        label_config=CONFIG, media_url="{name}",
    )  # fmt: skip
    assert convert(options, Report()).dropped == {"objects (on no frame)": 1}


# --- Label Studio exports as they are -----------------------------------------


def polygon_task(task_id, annotation, **fields):
    region = {
        "id": "p", "type": "polygonlabels", "from_name": "poly", "to_name": "img",
        "original_width": 64, "original_height": 48,
        "value": {"points": [[10, 10], [50, 10], [50, 50]], "polygonlabels": ["cat"]}, **fields,
    }  # fmt: skip
    return {
        "id": task_id, "data": {"image": "a.png"},
        "annotations": [{"id": annotation, "result": [region]}],
    }  # fmt: skip


def test_what_an_export_loses_and_keeps_is_said(tmp_path, capsys):
    source = tmp_path / "export.json"
    turned = polygon_task(2, 2, image_rotation=90)
    empty = polygon_task(3, 3)
    empty["annotations"].append({"id": 4, "updated_at": "2026-01-01", "result": []})
    source.write_text(json.dumps([polygon_task(1, 1), turned, empty, polygon_task(1, 5)]))
    assert run(source, "coco", tmp_path / "coco.json") == 0
    said = capsys.readouterr()
    assert said.out.startswith("4 videos, 4 frames, 3 objects, 3 masks; dropped: 1 regions (")
    assert "1 tasks whose newest annotation is empty, an older one was read" in said.out
    assert "malformed: tasks[1].annotations[0].result[0].image_rotation: 90 must be 0" in said.err
    assert "note: task 3: annotation 4, its newest, is empty: annotation 3 was read" in said.err
    assert "note: task 1 comes more than once" in said.err and "'1-a-2'" in said.err
    assert run(source, "coco", tmp_path / "coco.json", "--strict") == 2
    assert "tasks[1].annotations[0].result[0].image_rotation" in capsys.readouterr().err


@pytest.mark.parametrize("to", ["coco", "youtube-vis"])
def test_an_unlabelled_region_names_the_option(tmp_path, capsys, to):
    source, out = tmp_path / "export.json", tmp_path / "out.json"
    task, other = polygon_task(1, 1), polygon_task(2, 2)
    del task["annotations"][0]["result"][0]["value"]["polygonlabels"]
    source.write_text(json.dumps([task, other]))
    assert run(source, to, out) == 0
    said = capsys.readouterr()
    assert "1 object, 1 mask; dropped: 1 objects (has no label (--default-label" in said.out
    assert "object 'p': has no label (--default-label LABEL" in said.err
    assert run(source, to, out, "--strict") == 2
    assert "object 'p': has no label" in capsys.readouterr().err
    assert run(source, to, out, "--default-label", "thing") == 0
    assert "2 objects, 2 masks" in capsys.readouterr().out


def test_a_target_storage_is_converted_as_a_folder(tmp_path, capsys):
    folder = tmp_path / "storage"
    folder.mkdir()
    for number in (1, 2):
        task = polygon_task(number, number)
        (annotation,) = task.pop("annotations")
        (folder / str(number)).write_text(json.dumps({**annotation, "task": task}))
    for source in (folder, folder / "1"):
        assert run(source, "coco", tmp_path / f"{source.name}.json") == 0
    assert "2 videos" in (said := capsys.readouterr().out) and "1 video," in said
    assert run(folder, "coco", tmp_path / "v.json", "--val", "0.5") == 0


def test_a_picture_that_is_a_program_is_not_run(tmp_path, capsys, monkeypatch):
    """Pillow has Ghostscript run EPS, whatever the file is called."""
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/was-run\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(ghostscript.parent), prepend=":")
    masks = tmp_path / "davis" / "Annotations" / "480p" / "dog" / "00000.png"
    masks.parent.mkdir(parents=True)
    Image.new("L", (6, 4), 1).save(masks, format="EPS")
    status = run(tmp_path / "davis", "coco", tmp_path / "out.json")
    said = capsys.readouterr().err
    assert status == 2 and str(masks) in said and "no readable image" in said
    assert not (tmp_path / "was-run").exists()
