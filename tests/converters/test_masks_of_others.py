"""DAVIS and SA-V as tools write them that are not DAVIS' and SA-V's own."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from converters.davis import annotation_folder, image_folder, load_davis
from converters.formats import Format, open_source, recognise
from converters.indexed_png import davis_palette
from converters.masks import decode_mask, encode_mask
from converters.report import Report
from converters.sav import load_sav

SIZE_HW = (48, 64)
PALETTE = davis_palette()
OWN_COLOURS = np.random.default_rng(1).integers(1, 255, (256, 3), dtype=np.uint8)
OWN_COLOURS[0] = 0


def disk(frame: int = 0, radius: int = 12) -> np.ndarray:
    y, x = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    return (y - 24) ** 2 + (x - 24 - 2 * frame) ** 2 <= radius**2


def layers(*values, frame: int = 0) -> np.ndarray:
    """A square for each value, side by side, six a row."""
    picture = np.zeros(SIZE_HW, np.uint16)
    for place, value in enumerate(values):
        top, left = 2 + 9 * (place // 6), 2 + 9 * (place % 6) + frame
        picture[top : top + 7, left : left + 7] = value
    return picture


def gray(array) -> Image.Image:
    return Image.fromarray(np.asarray(array).astype(np.uint8))


def indexed(array, colours=PALETTE) -> Image.Image:
    image = gray(array)
    image.putpalette(colours.tobytes())
    return image


def rgb(array, colours=PALETTE) -> Image.Image:
    return Image.fromarray(colours[array])


def smaller_and_back(image, times=4, how=Image.Resampling.BILINEAR, back=None):
    size = (SIZE_HW[1] // times, SIZE_HW[0] // times)
    return image.resize(size, how).resize(SIZE_HW[::-1], how if back is None else back)


def write(folder, images, suffix=".png", **options):
    folder.mkdir(parents=True, exist_ok=True)
    for frame, image in enumerate(images):
        image.save(folder / f"{frame:05d}{suffix}", **options)
    return folder


def write_images(folder, count=3):
    write(folder, [Image.new("RGB", SIZE_HW[::-1])] * count, ".jpg")


def davis(tmp_path, images, suffix=".png", **options):
    """(the video or None, the report) of a data set of one video."""
    write(tmp_path / "Annotations/480p/v", images, suffix, **options)
    return load_one(tmp_path)


def load_one(tmp_path, load=load_davis):
    report = Report()
    videos = list(load(tmp_path, report=report))
    return videos[0] if videos else None, report


def ids(video):
    return [track.object_id for track in video.tracks]


def iou(mask, wanted):
    mask = decode_mask(mask)
    return (mask & wanted).sum() / (mask | wanted).sum()


# --- soft edges ---------------------------------------------------------------

SOFT = {
    "bilinear": lambda i: smaller_and_back(i),
    "twice as small": lambda i: smaller_and_back(i, 2),
    "bicubic": lambda i: smaller_and_back(i, how=Image.Resampling.BICUBIC),
    "pixels repeated": lambda i: smaller_and_back(i, 4, Image.Resampling.BOX),
    "bilinear, then pixels repeated": lambda i: smaller_and_back(
        i, 4, Image.Resampling.BILINEAR, Image.Resampling.NEAREST
    ),
    "as RGB": lambda i: smaller_and_back(i).convert("RGB"),
    "as RGBA": lambda i: smaller_and_back(i).convert("RGBA"),
    "with a palette of grays": lambda i: smaller_and_back(i).convert("P"),
    "16 bits": lambda i: Image.fromarray(np.asarray(smaller_and_back(i)).astype(np.uint16) * 257),
    "half as bright": lambda i: smaller_and_back(i.point(lambda v: v // 2)),
}


@pytest.mark.parametrize("soften", SOFT.values(), ids=SOFT.keys())
def test_soft_edges_are_of_one_object_and_that_is_said(tmp_path, soften):
    video, report = davis(tmp_path, [soften(gray(disk(t) * 255)) for t in range(3)])
    assert ids(video) == [1] and sorted(video.tracks[0].masks) == [0, 1, 2]
    assert all(iou(video.tracks[0].masks[t], disk(t)) > 0.8 for t in range(3))
    assert report.changed == {
        "gray masks with soft edges, read as one object at half of its white": 3
    }


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("quality", [30, 90])
def test_jpeg_masks_are_of_one_object(tmp_path, quality, suffix):
    images = [gray(disk(t) * 255) for t in range(3)]
    video, _ = davis(tmp_path, images, suffix, format="JPEG", quality=quality)
    assert ids(video) == [1]
    assert all(iou(video.tracks[0].masks[t], disk(t)) > 0.95 for t in range(3))


def test_a_frame_with_hard_edges_is_read_as_the_rest_of_its_video(tmp_path):
    soft = smaller_and_back(gray(disk() * 255))
    video, _ = davis(tmp_path, [gray(disk() * 255), soft, gray(disk() * 0)])
    assert ids(video) == [1] and sorted(video.tracks[0].masks) == [0, 1]


@pytest.mark.parametrize(
    "values",
    [(1, 2, 3), tuple(range(1, 25)), (60, 100, 200), (127, 255), (85, 170, 255), tuple(range(8, 248, 10))],
)
def test_hard_gray_values_are_objects(tmp_path, values):
    video, report = davis(tmp_path, [gray(layers(*values, frame=t)) for t in range(3)])
    assert ids(video) == list(values) and not report.changed and not report.dropped


def test_neighbours_that_touch_are_objects(tmp_path):
    picture = np.zeros(SIZE_HW)
    for place, value in enumerate((70, 130, 200, 250)):
        picture[5:40, 5 + 10 * place : 15 + 10 * place] = value
    assert ids(davis(tmp_path, [gray(picture)])[0]) == [70, 130, 200, 250]


def test_white_beside_small_indices_is_void_and_counted(tmp_path):
    video, report = davis(tmp_path, [gray(layers(1, 2, 255))])
    assert ids(video) == [1, 2] and report.dropped == {"pixels (void)": 49}


@pytest.mark.parametrize(
    "images",
    [
        lambda: [smaller_and_back(gray(90 * disk(-6, 11) + 180 * disk(9, 11)), 2)],
        lambda: [gray(np.random.default_rng(0).integers(0, 256, SIZE_HW))],
        lambda: [smaller_and_back(rgb(layers(1, 2, 3)))],
    ],
    ids=["smoothed edges of several", "a photograph", "smoothed colours"],
)
def test_objects_that_cannot_be_told_apart_cost_their_video(tmp_path, images):
    video, report = davis(tmp_path, images())
    assert video is None
    assert "tell no objects apart: write one index an object" in report.malformed[0]


# --- colours, depths, transparency --------------------------------------------


def test_colours_of_davis_palette_are_their_indices(tmp_path):
    # Frame 1 shows object 7 alone, which is gray.
    images = [rgb(layers(2, 7, 255)), rgb(layers(0, 7)), rgb(layers(5)).convert("RGBA")]
    video, report = davis(tmp_path, images)
    assert [(t.object_id, sorted(t.masks)) for t in video.tracks] == [(2, [0]), (5, [2]), (7, [0, 1])]
    assert report.changed == {"masks in colours, read by the palette": 3}


def test_other_colours_are_an_object_each_all_through_the_video(tmp_path):
    (tmp_path / "davis_semantics.json").write_text(json.dumps({"v": {"1": "cat"}}))
    images = [rgb(layers(9, 0, frame=t), OWN_COLOURS) for t in range(2)]
    video, report = davis(tmp_path, [*images, rgb(layers(4, 9), OWN_COLOURS)])
    assert [(t.object_id, sorted(t.masks)) for t in video.tracks] == [(1, [0, 1, 2]), (2, [2])]
    assert report.changed == {"masks in colours of no known palette, an object each": 3}
    # What is object 1 of the labels cannot be known.
    assert [t.labels for t in video.tracks] == [("object",)] * 2
    assert report.dropped == {"labels (of objects told apart by colour alone)": 1}


def test_one_coloured_file_among_indices_is_read_by_their_palette(tmp_path):
    images = [indexed(layers(3, 9), OWN_COLOURS), rgb(layers(0, 9), OWN_COLOURS)]
    video, _ = davis(tmp_path, [*images, indexed(layers(3), OWN_COLOURS)])
    assert [(t.object_id, sorted(t.masks)) for t in video.tracks] == [(3, [0, 2]), (9, [0, 1])]


def test_one_strange_picture_among_indices_costs_its_frame(tmp_path):
    strange = rgb(layers(4), OWN_COLOURS)
    video, report = davis(tmp_path, [indexed(layers(1)), strange, indexed(layers(2))])
    assert [(t.object_id, sorted(t.masks)) for t in video.tracks] == [(1, [0]), (2, [2])]
    assert video.unknown_frames == {1} and sum(report.dropped.values()) == 1


def test_a_palette_in_another_order_is_read_by_its_colours(tmp_path):
    order = np.arange(256)
    order[[0, 2]] = 2, 0
    image = indexed(order[layers(1, 2)], PALETTE[order])
    assert ids(davis(tmp_path, [image])[0]) == [1, 2]


@pytest.mark.parametrize(
    ("image", "wanted"),
    [
        (lambda: Image.fromarray(layers(300, 7, 255).astype(np.uint16)), [7, 255, 300]),
        (lambda: Image.fromarray(layers(1, 2).astype(np.uint16)), [1, 2]),
        (lambda: Image.fromarray((disk() * 65535).astype(np.uint16)), [1]),
        (lambda: gray(disk() * 255).convert("1"), [1]),
        (lambda: Image.fromarray(np.dstack([np.full((*SIZE_HW, 3), 255), disk() * 255]).astype(np.uint8)), [1]),
        (lambda: Image.fromarray(np.dstack([np.zeros((*SIZE_HW, 3)), disk() * 255]).astype(np.uint8)), [1]),
    ],
    ids=["16 bits", "16 bits, few", "16 bits, white", "1 bit", "white on clear", "black on clear"],
)  # fmt: skip
def test_depths_and_transparency(tmp_path, image, wanted):
    assert ids(davis(tmp_path, [image()])[0]) == wanted


def test_indices_of_four_bits(tmp_path):
    assert ids(davis(tmp_path, [indexed(layers(1, 15))], bits=4)[0]) == [1, 15]


def adam7(indices: np.ndarray) -> bytes:
    """An interlaced 8-bit gray PNG, which Pillow does not write."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = b"".join(
        b"\0" + row.tobytes()
        for top, left, down, right in passes
        for row in indices[top::down, left::right].astype(np.uint8)
    )

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", *indices.shape[::-1], 8, 0, 0, 0, 1)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_interlaced_pngs_are_read(tmp_path):
    video, _ = davis(tmp_path, [Image.open(io.BytesIO(adam7(layers(1, 2))))])
    (tmp_path / "Annotations/480p/v/00000.png").write_bytes(adam7(layers(1, 2)))
    video, _ = load_one(tmp_path)
    assert ids(video) == [1, 2]
    np.testing.assert_array_equal(decode_mask(video.tracks[1].masks[0]), layers(1, 2) == 2)


# --- folders ------------------------------------------------------------------


def test_stray_files_of_macos_and_windows_are_none_of_the_data_set(tmp_path):
    masks = write(tmp_path / "Annotations/480p/v", [indexed(layers(1))] * 3)
    images = tmp_path / "JPEGImages/480p/v"
    write_images(images)
    for folder in (masks, images, masks.parent, tmp_path):
        for name in ("._00000.png", "._00000.jpg", ".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / name).write_bytes(b"\0\5\26\7Mac OS X")
    for folder in (masks.parent, masks.parent.parent, images.parent, images.parent.parent):
        (folder / "__MACOSX/v").mkdir(parents=True)
        (folder / "@eaDir").mkdir()
    video, report = load_one(tmp_path)
    assert recognise(tmp_path) == Format.DAVIS
    assert video.file_names == tuple(f"v/{t:05d}.jpg" for t in range(3))
    assert not report.dropped


def test_suffixes_may_be_in_upper_case(tmp_path):
    write(tmp_path / "Annotations/v", [indexed(layers(1))] * 2, ".PNG")
    write(tmp_path / "JPEGImages/v", [Image.new("RGB", SIZE_HW[::-1])] * 2, ".JPG")
    assert recognise(tmp_path) == Format.DAVIS
    video, report = load_one(tmp_path)
    assert video.file_names == ("v/00000.JPG", "v/00001.JPG") and not report.dropped
    write(tmp_path / "sav/Annotations_6fps/v/000", [indexed(layers(1))], ".PNG")
    assert len(load_one(tmp_path / "sav", load_sav)[0].tracks[0].masks) == 1


def test_an_empty_folder_costs_itself(tmp_path):
    write(tmp_path / "Annotations/480p/v", [indexed(layers(1))])
    (tmp_path / "Annotations/480p/a").mkdir()
    video, report = load_one(tmp_path)
    assert video.name == "v" and report.dropped == {"videos (holds no mask: no PNG)": 1}
    with pytest.raises(ValueError, match="/a: holds no mask"):
        list(load_davis(tmp_path))


@pytest.mark.parametrize("level", ["720p", "1080p", "Full-Resolution", "480", "1920x1080", "4K", "small"])
@pytest.mark.parametrize("has_images", [True, False])
def test_resolutions_have_any_name(tmp_path, level, has_images):
    write(tmp_path / "Annotations" / level / "v", [indexed(layers(1))])
    if has_images:
        write_images(tmp_path / "JPEGImages" / level / "v", 1)
    assert recognise(tmp_path) == Format.DAVIS
    video, report = load_one(tmp_path)
    assert video.name == "v" and not report.dropped
    assert annotation_folder(tmp_path).name == level


def test_of_several_resolutions_the_finest_that_masks_and_images_have(tmp_path):
    for level in ("480p", "1080p", "Full-Resolution"):
        write(tmp_path / "Annotations" / level / "v", [indexed(layers(1))])
    for level in ("480p", "1080p"):
        write_images(tmp_path / "JPEGImages" / level / "v", 1)
    assert annotation_folder(tmp_path).name == image_folder(tmp_path).name == "1080p"
    assert annotation_folder(tmp_path, resolution="480p").name == "480p"
    assert annotation_folder(tmp_path, resolution="720p").name == "1080p"


def test_images_of_another_resolution_are_said_and_not_taken(tmp_path):
    write(tmp_path / "Annotations/480p/v", [indexed(layers(1))])
    write_images(tmp_path / "JPEGImages/Full-Resolution/v", 1)
    video, report = load_one(tmp_path)
    assert report.dropped == {"images (of Full-Resolution, the masks are of 480p)": 1}
    assert image_folder(tmp_path) == tmp_path / "JPEGImages/480p"
    assert len(video.tracks) == 1


def test_a_video_of_sa_v_is_no_resolution(tmp_path):
    write(tmp_path / "Annotations/480p_walk/000", [indexed(layers(1))])
    write_images(tmp_path / "JPEGImages/480p_walk", 1)
    for name in ("v", "00480"):
        write(tmp_path / "no_images" / name / "Annotations" / name / "000", [indexed(layers(1))])
        assert recognise(tmp_path / "no_images" / name) == Format.SAV
    assert recognise(tmp_path) == Format.SAV


def test_davis_unsupervised_and_youtube_vos_with_categories(tmp_path):
    write(tmp_path / "Annotations_unsupervised/480p/v", [indexed(layers(1, 2, 3))])
    objects = {"1": {"category": "cat", "frames": ["00000"]}, "2": {"frames": []}, "3": None}
    document = {"videos": {"v": {"objects": objects}, "other": {"objects": {}}}}
    (tmp_path / "meta.json").write_text(json.dumps(document))
    assert recognise(tmp_path) == Format.DAVIS
    video, report = load_one(tmp_path)
    assert [t.labels for t in video.tracks] == [("cat",), ("object",), ("object",)]
    assert not report.dropped


@pytest.mark.parametrize("annotations", ["Annotations", "Annotations_6fps", "Annotations_unsupervised"])
def test_the_splits_of_a_data_set_are_named(tmp_path, annotations):
    for split in ("train", "valid"):
        write(tmp_path / split / annotations / "v", [indexed(layers(1))])
    with pytest.raises(ValueError, match="each of its folders train, valid is one"):
        recognise(tmp_path)


def test_links_that_lead_out_are_left_out(tmp_path):
    outside = write(tmp_path / "outside", [indexed(layers(1))])
    masks = write(tmp_path / "d/Annotations/480p/v", [indexed(layers(1))])
    (masks / "00001.png").symlink_to(outside / "00000.png")
    (masks.parent / "w").symlink_to(outside)
    video, report = load_one(tmp_path / "d")
    assert (video.name, sorted(video.tracks[0].masks)) == ("v", [0])
    assert report.dropped == {
        "masks (leads out of the data set)": 1, "videos (leads out of the data set)": 1
    }


# --- one bad file -------------------------------------------------------------


@pytest.mark.parametrize("layout", ["davis", "sav"])
def test_one_bad_picture_costs_its_mask_alone(tmp_path, layout):
    folder = tmp_path / ("Annotations/v" if layout == "davis" else "Annotations_6fps/v/000")
    write(folder, [gray(layers(1)[:24]), *[gray(layers(1))] * 5])
    write_images(tmp_path / ("JPEGImages/v" if layout == "davis" else "JPEGImages_24fps/v"), 5)
    (folder / "00001.png").write_bytes(b"no")
    (folder / "00002.png").write_bytes((folder / "00002.png").read_bytes()[:60])
    report = Report()
    (video,) = open_source(tmp_path, report=report)
    assert sorted(video.tracks[0].masks) == [3, 4] and video.info.frame_count == 5
    assert video.unknown_frames == {0, 1, 2}
    assert sum(report.dropped.values()) == 4 and all("masks (" in what for what in report.dropped)
    assert any("00000.png: has 24 x 64 pixels" in line for line in report.malformed)
    assert any("00005.png: annotates a frame that has no image" in line for line in report.malformed)


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("no json", "files of labels (is not valid JSON: "),
        ("[1]", "files of labels (must be an object of videos)"),
        ('{"v": 7}', "labels (must be an object of objects' labels)"),
        ('{"v": {"1": 7, "2": "dog"}}', "labels (must be an array, is …)"),
    ],
)
def test_bad_labels_cost_the_labels(tmp_path, text, lost):
    (tmp_path / "davis_semantics.json").write_text(text)
    video, report = davis(tmp_path, [indexed(layers(1, 2))])
    assert [len(t.masks) for t in video.tracks] == [1, 1] and video.tracks[0].labels == ("object",)
    assert video.tracks[1].labels == (("dog",) if "dog" in text else ("object",))
    assert [what[: len(lost)] for what in report.dropped] == [lost]
    with pytest.raises(ValueError, match="davis_semantics.json"):
        list(load_davis(tmp_path))


def test_only_the_videos_that_are_asked_for_are_read(tmp_path):
    write(tmp_path / "Annotations/v", [indexed(layers(1))])
    write(tmp_path / "Annotations/w", [Image.new("CMYK", (4, 4))], ".tif")
    (tmp_path / "Annotations/w/00000.tif").rename(tmp_path / "Annotations/w/00000.png")
    assert [video.name for video in load_davis(tmp_path, only=["v"])] == ["v"]
    with pytest.raises(ValueError, match="video 'x' is not in the data set: .*'v', 'w'"):
        list(load_davis(tmp_path, only=["v", "x"]))


# --- SA-V ---------------------------------------------------------------------


def test_folders_of_objects_may_have_names(tmp_path):
    for name in ("000", "001", "1", "left dog", "__MACOSX", ".x"):
        write(tmp_path / "Annotations_6fps/v" / name, [gray(disk() * 255)])
    (tmp_path / "Annotations_6fps/v/7").mkdir()
    video, report = load_one(tmp_path, load_sav)
    assert ids(video) == [0, "001", "1", 7, "left dog"]
    assert not report.dropped


def test_masks_of_an_object_may_be_soft_or_coloured(tmp_path):
    folder = tmp_path / "Annotations_6fps"
    write(folder / "soft/000", [smaller_and_back(gray(disk() * 255))])
    write(folder / "soft/001", [gray(disk() * 255)])
    write(folder / "red/000", [rgb(disk() * 1)])
    report = Report()
    videos = list(load_sav(tmp_path, report=report))
    assert [[len(t.masks) for t in v.tracks] for v in videos] == [[1], [1, 1]]
    assert all(iou(track.masks[0], disk()) > 0.8 for v in videos for track in v.tracks)


FRAMES = [
    [{"size": [*SIZE_HW], "counts": encode_mask(disk(t, radius)).counts} for radius in (12, 6)]
    for t in range(3)
]


def sav_json(tmp_path, **changes):
    """(the video or None, the report) of a file with these fields changed; None: left out."""
    document = {
        "video_id": "sav_1", "video_duration": 0.5, "video_frame_count": 12, "video_height": 48,
        "video_width": 64, "masklet_id": [10, 12], "masklet": FRAMES,
    } | changes  # fmt: skip
    (tmp_path / "v_manual.json").write_text(json.dumps(document))
    return load_one(tmp_path, load_sav)


def seen(video):
    return {track.object_id: sorted(track.masks) for track in video.tracks}


ALL = {10: [0, 1, 2], 12: [0, 1, 2]}


@pytest.mark.parametrize("key", ["video_height", "video_width", "video_id", "video_frame_count", "video_duration"])
@pytest.mark.parametrize("value", [None, "many"])
def test_lengths_and_names_that_are_missing_are_taken_from_the_masks(tmp_path, key, value):
    video, report = sav_json(tmp_path, **{key: value})
    assert seen(video) == ALL and (video.info.height, video.info.width) == SIZE_HW
    assert video.file_names == ("v/00000.jpg", "v/00004.jpg", "v/00008.jpg")
    assert video.name == ("sav_1" if key != "video_id" else value or "v")
    # A duration need not be there, and any text is a name.
    is_right = (key, value) in (("video_duration", None), ("video_id", "many"))
    assert sum(report.dropped.values()) == (not is_right)


def test_masklets_without_ids_are_numbered(tmp_path):
    video, _ = sav_json(tmp_path, masklet_id=None)
    assert seen(video) == {0: [0, 1, 2], 1: [0, 1, 2]}
    video, report = sav_json(tmp_path, masklet_id=[10])
    assert seen(video) == {10: [0, 1, 2]} and sum(report.dropped.values()) == 1
    video, report = sav_json(tmp_path, masklet_id=[10, 10])
    assert seen(video) == {10: [0, 1, 2]}
    assert report.malformed[0].endswith("v_manual.json: masklet_id[1]: 10 repeats")


def test_a_bad_mask_costs_itself(tmp_path):
    frames = [FRAMES[0], [{"size": [*SIZE_HW], "counts": [3]}, None], [FRAMES[2][0]]]
    video, report = sav_json(tmp_path, masklet=frames)
    assert seen(video) == {10: [0, 2], 12: [0]} and video.unknown_frames == {1}
    assert "masklet[1][0].counts: mask counts cover 3 pixels" in report.malformed[0]
    assert report.changed == {"frames with more or fewer masks than the first": 1}
    later = [[FRAMES[0][0]], FRAMES[1], FRAMES[2]]
    assert seen(sav_json(tmp_path, masklet=later)[0]) == {10: [0, 1, 2], 12: [1, 2]}


def test_null_may_stand_where_a_list_would(tmp_path):
    video, report = sav_json(tmp_path, masklet=[FRAMES[0], None, FRAMES[2]])
    assert seen(video) == {10: [0, 2], 12: [0, 2]} and video.info.frame_count == 3
    video, report = sav_json(tmp_path, masklet=None, masklet_labels=None)
    assert seen(video) == {10: [], 12: []} and video.info.frame_count == 0
    for nothing in (None, [], {"size": [48, 64], "counts": None}):
        frames = [FRAMES[0], [FRAMES[1][0], nothing], FRAMES[2]]
        video, report = sav_json(tmp_path, masklet=frames)
        assert seen(video) == {10: [0, 1, 2], 12: [0, 2]} and not report.dropped


def test_boxes_alone_are_boxes(tmp_path):
    frames = [[{"bbox": [8, 6, 10, 4]}, mask] for _, mask in FRAMES]
    video, report = sav_json(tmp_path, masklet=frames)
    assert seen(video) == ALL and decode_mask(video.tracks[0].masks[0])[6:10, 8:18].all()
    assert decode_mask(video.tracks[0].masks[0]).sum() == 40
    assert report.changed == {"masks missing, written as their box": 3}


@pytest.mark.parametrize("form", ["bytes", "runs", "runs as floats"])
def test_counts_as_other_tools_write_them(tmp_path, form):
    def changed(mask):
        if form == "bytes":
            return mask | {"counts": str(mask["counts"].encode())}
        runs = np.diff(np.flatnonzero(np.diff(np.r_[-1, disk().T.ravel(), -1])))
        kind = float if form == "runs as floats" else int
        return mask | {"counts": [kind(run) for run in runs]}

    frames = [[changed(mask) for mask in frame] for frame in FRAMES]
    video, _ = sav_json(tmp_path, masklet=frames)
    assert seen(video) == ALL
    assert iou(video.tracks[0].masks[0], disk()) == 1


def test_a_bad_file_costs_its_video(tmp_path):
    sav_json(tmp_path)
    (tmp_path / "w_manual.json").write_text('{"masklet": [[')
    (tmp_path / "._v_manual.json").write_bytes(b"\0\5\26\7Mac OS X")
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX/v_manual.json").write_bytes(b"\0\5\26\7Mac OS X")
    video, report = load_one(tmp_path, load_sav)
    assert video.name == "sav_1" and sum(report.dropped.values()) == 1
    assert "w_manual.json" in report.malformed[0]
    (tmp_path / "v_manual.json").unlink()
    assert load_one(tmp_path, load_sav)[0] is None
