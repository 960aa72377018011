"""DAVIS and SA-V as folders: what other people's look like, and what ours hold."""

import json

import numpy as np
import pytest
from PIL import Image

from converters.davis import image_folder as davis_images
from converters.davis import load_davis, save_davis
from converters.indexed_png import davis_palette
from converters.masks import decode_mask, encode_mask
from converters.sav import image_folder as sav_images
from converters.sav import load_sav, save_sav
from converters.types import Track
from tests.converters.cases import annotated_video, constant_rate_info, late, moving_track

VIDEOS = (annotated_video("one"), annotated_video("two"))
LEFT, RIGHT = np.zeros((4, 6), bool), np.zeros((4, 6), bool)
LEFT[:, :2], RIGHT[1:3, 3:] = True, True


def png(path, array, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(array, np.uint8))
    if mode == "P":
        image.putpalette(davis_palette().tobytes())
    elif mode != "L":
        image = image.convert(mode)
    image.save(path, format="TIFF" if mode == "CMYK" else None)


def jpeg(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4)).save(path)


# --- DAVIS --------------------------------------------------------------------


def test_davis_2017_has_objects_by_index_and_void_is_none(tmp_path):
    jpeg(tmp_path / "JPEGImages/480p/dog/00000.jpg"), jpeg(tmp_path / "JPEGImages/480p/dog/00001.jpg")
    annotations = tmp_path / "Annotations/480p/dog"
    png(annotations / "00000.png", 2 * LEFT + 1 * RIGHT, "P")
    png(annotations / "00001.png", 2 * RIGHT + 255 * LEFT, "P")
    (video,) = load_davis(tmp_path)
    assert (video.name, video.file_names) == ("dog", ("dog/00000.jpg", "dog/00001.jpg"))
    assert davis_images(tmp_path) == tmp_path / "JPEGImages/480p"
    assert [(t.object_id, t.labels, sorted(t.masks)) for t in video.tracks] == [
        (1, ("object",), [0]),
        (2, ("object",), [0, 1]),
    ]
    np.testing.assert_array_equal(decode_mask(video.tracks[1].masks[1]), RIGHT)


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_davis_2016_has_one_object_that_is_white(tmp_path, mode):
    folder = tmp_path / "Annotations/480p/dog"
    png(folder / "00000.png", 255 * LEFT, mode)
    png(folder / "00001.png", 0 * LEFT, mode)
    (video,) = load_davis(tmp_path, default_label="Dog")
    assert [(t.object_id, t.labels, sorted(t.masks)) for t in video.tracks] == [(1, ("Dog",), [0])]
    np.testing.assert_array_equal(decode_mask(video.tracks[0].masks[0]), LEFT)


def test_frames_of_youtube_vos_are_those_with_a_mask_file(tmp_path):
    for index in range(0, 11):
        jpeg(tmp_path / f"JPEGImages/v/{index:05d}.jpg")
    for index in (0, 5, 10):
        png(tmp_path / f"Annotations/v/{index:05d}.png", LEFT * (index > 0))
    (video,) = load_davis(tmp_path)
    assert video.file_names == ("v/00000.jpg", "v/00005.jpg", "v/00010.jpg")
    assert sorted(video.tracks[0].masks) == [1, 2]


def test_what_davis_writes_is_indexed_with_its_palette_and_named_as_the_images(tmp_path):
    names = tuple(f"somewhere/{i * 3:05d}.png" for i in range(10))
    report = save_davis(tmp_path, [annotated_video("a/b", file_names=names)], image_set="val")
    folder = tmp_path / "Annotations/Full-Resolution/a__b"
    assert sorted(p.name for p in folder.iterdir()) == [f"{i * 3:05d}.png" for i in range(10)]
    with Image.open(folder / "00012.png") as image:
        assert (image.mode, image.getextrema()) == ("P", (0, 2))
        assert image.getpalette()[:9] == [0, 0, 0, 128, 0, 0, 0, 128, 0]
    assert (tmp_path / "ImageSets/2017/val.txt").read_text() == "a__b\n"
    assert json.loads((tmp_path / "davis_semantics.json").read_text()) == {
        "a__b": {"1": "Car", "2": "Hund ü 犬"}
    }
    assert (report.videos, report.frames, report.objects, report.masks) == (1, 10, 2, 8)


def test_the_palette_is_that_of_pascal_voc():
    colours = davis_palette().tolist()
    assert colours[:5] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert colours[21] == [128, 64, 128] and colours[255] == [224, 224, 192]


def test_of_overlapping_objects_the_smaller_is_on_top_in_davis(tmp_path):
    big, small = np.ones((48, 64), bool), np.zeros((48, 64), bool)
    small[10:20, 10:20] = True
    tracks = [Track("s", ("S",), {0: encode_mask(small)}), Track("b", ("B",), {0: encode_mask(big)})]
    report = save_davis(tmp_path, [annotated_video(tracks=tracks)])
    (video,) = load_davis(tmp_path)
    np.testing.assert_array_equal(decode_mask(video.tracks[0].masks[0]), small)
    np.testing.assert_array_equal(decode_mask(video.tracks[1].masks[0]), big & ~small)
    assert report.changed == {"pixels given to a smaller object": 100}
    assert "100 pixels given to a smaller object" in report.summary()


def test_davis_holds_254_objects(tmp_path):
    pixel = np.zeros((1, 255), bool)
    tracks = []
    for number in range(255):
        mask = pixel.copy()
        mask[0, number] = True
        tracks.append(Track(number, ("x",), {0: encode_mask(mask)}))
    info = constant_rate_info(1, width=255, height=1)
    save_davis(tmp_path / "a", [annotated_video(info=info, tracks=tracks[:254])])
    (video,) = load_davis(tmp_path / "a")
    assert [t.object_id for t in video.tracks] == list(range(1, 255))
    with pytest.raises(ValueError, match="has 255 objects, DAVIS holds 254"):
        save_davis(tmp_path / "b", [annotated_video(info=info, tracks=tracks)])


# --- SA-V ---------------------------------------------------------------------


def test_sav_validation_layout_keeps_overlap_and_frame_numbers(tmp_path):
    for index in range(9):
        jpeg(tmp_path / f"JPEGImages_24fps/v1/{index:05d}.jpg")
    for index in (0, 4, 8):
        png(tmp_path / f"Annotations_6fps/v1/000/{index:05d}.png", LEFT, "P")
    png(tmp_path / "Annotations_6fps/v1/003/00004.png", 255 * LEFT)
    (video,) = load_sav(tmp_path)
    assert video.file_names == ("v1/00000.jpg", "v1/00004.jpg", "v1/00008.jpg")
    assert sav_images(tmp_path) == tmp_path / "JPEGImages_24fps"
    assert [(t.object_id, sorted(t.masks)) for t in video.tracks] == [(0, [0, 1, 2]), (3, [1])]
    np.testing.assert_array_equal(decode_mask(video.tracks[1].masks[1]), LEFT)


def masklet(mask):
    return {"size": [4, 6], "counts": encode_mask(mask).counts}


def sav_json(frames, **changes):
    document = {
        "video_id": "sav_1", "video_duration": 1.0, "video_frame_count": 24.0,
        "video_height": 4.0, "video_width": 6.0, "video_resolution": 24.0,
        "video_environment": ["Indoor"], "video_split": "train",
        "masklet": frames, "masklet_id": [10, 12], "masklet_num": 2,
    }  # fmt: skip
    document.update(changes)
    return {key: value for key, value in document.items() if value != "del"}


FRAMES = [[masklet(LEFT), masklet(LEFT & RIGHT) if i % 2 else masklet(RIGHT)] for i in range(6)]


def test_sav_training_layout_has_masks_on_every_fourth_frame(tmp_path):
    folder = tmp_path / "sav_train/sav_000"
    folder.mkdir(parents=True)
    (folder / "sav_1_manual.json").write_text(json.dumps(sav_json(FRAMES)))
    auto = sav_json([frame[:1] for frame in FRAMES], masklet_id=[10])
    # The masks may come before the size they must have.
    (folder / "sav_1_auto.json").write_text(json.dumps(dict(reversed(auto.items()))))
    (video,) = load_sav(tmp_path)
    assert (video.name, video.info.frame_count, video.info.fps) == ("sav_1", 6, 6.0)
    assert video.file_names == tuple(f"sav_1/{i:05d}.jpg" for i in range(0, 24, 4))
    assert [(t.object_id, sorted(t.masks)) for t in video.tracks] == [
        (10, [0, 1, 2, 3, 4, 5]),
        # An empty mask is "not visible".
        (12, [0, 2, 4]),
        ("auto 10", [0, 1, 2, 3, 4, 5]),
    ]


def test_sav_training_file_has_the_fields_of_the_data_set(tmp_path):
    save_sav(tmp_path, [annotated_video("one")])
    document = json.loads((tmp_path / "one_manual.json").read_text())
    assert len(document["masklet"]) == 10 and len(document["masklet"][0]) == 2
    expected = {
        "video_id": "one", "video_duration": 0.4, "video_frame_count": 10.0,
        "video_height": 48.0, "video_width": 64.0, "video_resolution": 3072.0, "video_split": "train",
        "masklet_id": [0, 1], "masklet_num": 2, "masklet_type": ["manual", "manual"],
        "masklet_first_appeared_frame": [0, 4], "masklet_frame_count": [10, 10],
        # Seen 0-2 and 6-9: gone and back; seen on 4: gone.
        "masklet_visibility_changes": [2, 1], "masklet_labels": [["Car"], ["Hund ü 犬"]],
        # What makes SAM 2's loader take a mask for each frame.
        "fps": 24.0,
    }  # fmt: skip
    assert {key: document[key] for key in expected} == expected
    areas = [decode_mask(m).sum() for m in annotated_video().tracks[0].masks.values()]
    assert document["masklet_size_abs"][0] == pytest.approx(np.mean(areas))
    assert document["masklet_size_rel"][0] == pytest.approx(np.mean(areas) / 3072)
    assert document["masklet_size_bucket"][1] == "small"


def test_a_sav_videos_duration_is_that_of_its_frames_also_when_they_begin_late(tmp_path):
    video = late(annotated_video("one"))
    save_sav(tmp_path, [video])
    document = json.loads((tmp_path / "one_manual.json").read_text())
    assert document["video_duration"] == pytest.approx(0.4)


def test_sav_folders_have_a_binary_picture_an_object_and_frame(tmp_path):
    save_sav(tmp_path, VIDEOS, layout="folders", split="val")
    files = sorted((tmp_path / "Annotations_6fps").rglob("*.png"))
    assert len(files) == 2 * 2 * 10
    for file in files:
        with Image.open(file) as image:
            assert image.mode == "P" and image.size == (64, 48)
            assert np.asarray(image).max() <= 1
    assert (tmp_path / "sav_val.txt").read_text() == "one\ntwo\n"


# --- mistakes -----------------------------------------------------------------


def bad_jsons():
    first = [FRAMES[0]]
    yield {"frames": [*first, [FRAMES[0][0]], *FRAMES[2:]]}, r"masklet\[1\]: has 1 masks, the first frame 2"
    yield {"frames": [*first, [*FRAMES[0], None]]}, r"masklet\[1\]: has 3 masks, the first frame 2"
    yield {"frames": [[{"size": [4, 6], "counts": [3]}, None]]}, r"masklet\[0\]\[0\].counts: .*cover 3 pixels"
    yield {"frames": [[{"size": [6, 4], "counts": [24]}, None]] * 6}, r"masklet\[0\]\[0\]: mask has size 6 x 4"
    yield {"frames": FRAMES, "video_frame_count": 23.5}, "video_frame_count: must be a whole number"
    yield {"frames": FRAMES, "video_frame_count": 5}, "masklet: has 6 frames, which no step makes of"
    yield {"frames": FRAMES, "video_height": "del"}, "has no 'video_height'"
    yield {"frames": FRAMES, "video_duration": -1}, "video_duration: must be >= 0"
    yield {"frames": FRAMES, "masklet_id": [1]}, "masklet_id: has 1 items for 2 masklets"
    yield {"frames": FRAMES, "masklet_id": [1, 1]}, r"masklet_id\[1\]: 1 repeats"
    yield {"frames": FRAMES, "masklet_labels": [["a"]]}, "masklet_labels: has 1 items"
    yield {"frames": {}}, "masklet: must be an array"


@pytest.mark.parametrize(("changes", "message"), list(bad_jsons()))
def test_sav_errors_name_the_file_and_the_place(tmp_path, changes, message):
    (tmp_path / "v_manual.json").write_text(json.dumps(sav_json(changes.pop("frames"), **changes)))
    with pytest.raises(ValueError, match=r"v_manual\.json: .*" + message):
        list(load_sav(tmp_path))


@pytest.mark.parametrize("load", [load_davis, load_sav])
def test_a_folder_that_is_no_data_set_is_said(tmp_path, load):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        list(load(tmp_path))


def _broken(path):
    png(path, LEFT)
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: png(f / "00001.png", LEFT, "CMYK"), "00001.png: has mode CMYK"),
        (lambda f: png(f / "00001.png", LEFT.T), "00001.png"),
        (lambda f: (f / "00001.png").write_bytes(b"no"), "00001.png: is no readable image"),
        (lambda f: _broken(f / "00001.png"), "00001.png: is no readable image"),
        (lambda f: png(f / "00002.png", LEFT), "00002.png: annotates a frame that has no image"),
    ],
)
@pytest.mark.parametrize("layout", ["davis", "sav"])
def test_a_bad_picture_is_named(tmp_path, layout, make, message):
    davis = layout == "davis"
    images = tmp_path / ("JPEGImages" if davis else "JPEGImages_24fps") / "v"
    folder = tmp_path / ("Annotations/v" if davis else "Annotations_6fps/v/000")
    for index in range(2):
        jpeg(images / f"{index:05d}.jpg")
        png(folder / f"{index:05d}.png", LEFT)
    make(folder)
    with pytest.raises(ValueError, match=message):
        list((load_davis if davis else load_sav)(tmp_path))


@pytest.mark.parametrize("save", [save_davis, save_sav, lambda f, v: save_sav(f, v, layout="folders")])
class TestWritersOfFolders:
    @pytest.mark.parametrize(
        ("videos", "message"),
        [
            ([annotated_video("..")], "'..' cannot be that of a folder"),
            ([annotated_video("a\\b")], "cannot be that of a folder"),
            ([annotated_video("a/b"), annotated_video("a__b")], "would both have the folder 'a__b'"),
            ([annotated_video(tracks=[Track("t", (), {})])], "has no label"),
        ],
    )
    def test_refuse_what_makes_no_data_set(self, tmp_path, save, videos, message):
        with pytest.raises(ValueError, match=message):
            save(tmp_path / "x" / "y", videos)
        assert {p.name for p in tmp_path.rglob("*")} <= {
            "x", "y", "Annotations", "Annotations_6fps", "Full-Resolution", "a__b", "a__b_manual.json",
            *(f"{i:05d}.png" for i in range(10)), "000", "001",
        }  # fmt: skip

    def test_write_nothing_over_what_is_there(self, tmp_path, save):
        save(tmp_path, [annotated_video("one")])
        with pytest.raises(ValueError, match="is not empty|exists"):
            save(tmp_path, [annotated_video("one")])
        save(tmp_path, [annotated_video("another")])

    def test_count_what_they_leave_out(self, tmp_path, save):
        empty = encode_mask(np.zeros((48, 64), bool))
        seen = moving_track(constant_rate_info(), [1, 2], object_id="seen")
        tracks = [Track("never", ("Dog",), {0: empty}), Track("seen", ("Car",), {**seen.masks, 4: empty})]
        report = save(tmp_path, [annotated_video(tracks=tracks)])
        assert (report.objects, report.masks) == (1, 2)
        assert report.dropped == {"masks (empty)": 2, "objects (on no frame)": 1}


def test_two_frames_with_one_name_are_refused(tmp_path):
    names = tuple(f"{i}/x.jpg" for i in range(10))
    with pytest.raises(ValueError, match="two frames with the name 'x'"):
        save_davis(tmp_path, [annotated_video(file_names=names)])
