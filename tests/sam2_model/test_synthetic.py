import json
import pickle
import subprocess
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from sam2_model.training import materials as materials_module
from sam2_model.training import synthetic
from sam2_model.training.materials import KINDS, Materials, MaterialsError, prepare, split_of
from sam2_model.training.synthetic import (
    MAKERS,
    ClipSettings,
    clip_stream,
    make_clip,
    make_image_sample,
    make_warped_clip,
)

SETTINGS = ClipSettings(image_size_hw=(80, 96), frame_count=3, max_objects=3)
EFFECTS = (
    "deform fast_motion screen_locked leave partly_outside low_contrast object_blur shadow "
    "camera_motion distractor occluder motion_blur lighting frame_blur noise jpeg"
).split()
CALM = replace(SETTINGS, **dict.fromkeys(EFFECTS, 0.0), overlays=0.0)


@pytest.fixture(scope="module")
def materials():
    return Materials.procedural(3, count_per_kind=4)


@dataclass(frozen=True, eq=False)
class GivenItem:
    """An item that is an array, to know what is in the picture."""

    kind: str
    array: np.ndarray

    def decode(self, folder):
        return self.array.copy()


# ------------------------------------------------------------------ shapes and determinism


@pytest.mark.parametrize("kind", MAKERS)
def test_frames_and_masks_have_the_promised_shapes(materials, kind):
    for seed in range(4):
        clip = MAKERS[kind](materials, SETTINGS, seed)
        frame_count = 1 if kind == "image" else 3
        assert clip.frames.shape == (frame_count, 80, 96, 3)
        assert clip.frames.dtype == np.uint8
        assert clip.masks.shape[0] == frame_count and clip.masks.shape[2:] == (80, 96)
        assert clip.masks.dtype == bool


@pytest.mark.parametrize("kind", MAKERS)
def test_masks_are_disjoint_and_every_object_is_on_the_first_frame(materials, kind):
    for seed in range(6):
        clip = MAKERS[kind](materials, SETTINGS, seed)
        assert clip.masks.sum(axis=1).max() <= 1
        assert clip.masks[0].any(axis=(1, 2)).all()


@pytest.mark.parametrize("kind", MAKERS)
def test_a_seed_gives_the_same_bytes_again(materials, kind):
    again = Materials.procedural(3, count_per_kind=4)
    for seed in (0, 7, 2**40):
        first, second = (MAKERS[kind](source, SETTINGS, seed) for source in (materials, again))
        assert first.frames.tobytes() == second.frames.tobytes()
        assert first.masks.tobytes() == second.masks.tobytes()
    other = MAKERS[kind](materials, SETTINGS, 8)
    assert other.frames.tobytes() != first.frames.tobytes()


def test_a_clip_has_at_most_max_objects(materials):
    settings = replace(SETTINGS, max_objects=2, distractor=1.0)
    assert max(make_clip(materials, settings, seed).masks.shape[1] for seed in range(8)) == 2


# ------------------------------------------------------------------ exact masks


def _opaque_layer(owner, *, drift_x=0.0, start_x=48.0):
    frames = np.full((1, 20, 30, 4), 255, np.uint8)
    start = np.zeros(8)
    start[:2] = start_x, 40.0
    drift = np.zeros(8)
    drift[0] = drift_x
    rest = np.zeros(8)
    motion = synthetic._Motion(start=start, drift=drift, sway=rest, rate=rest, phase=rest)
    return synthetic._Layer(sprite=synthetic._sprite(frames), motion=motion, owner=owner)


def _black_scene(*layers, shutter=0.0):
    still = synthetic._Motion(*[np.zeros(8)] * 5)
    background = synthetic._Background(picture=torch.zeros(1, 3, 80, 96), to_world=np.eye(3))
    return synthetic._Scene(background, still, layers, shutter)


def test_a_mask_is_where_the_object_was_drawn():
    layer = replace(
        _opaque_layer(1), wobble=synthetic._random_wobble(np.random.default_rng(0), 30, 0.1)
    )
    canvas, owners = synthetic._draw_frame(_black_scene(layer), 1.0, (80, 96))
    assert (owners == 1).sum() > 300
    # White on black: the colour is the alpha.
    assert ((canvas[0] > 0.5) == (owners == 1)).all()


def test_what_is_in_front_takes_pixels_from_the_mask_behind():
    alone = synthetic._draw_frame(_black_scene(_opaque_layer(1)), 0.0, (80, 96))[1]
    front = _opaque_layer(2, start_x=60.0)
    both = synthetic._draw_frame(_black_scene(_opaque_layer(1), front), 0.0, (80, 96))[1]
    assert (alone == 1).sum() == 600
    assert (both == 2).sum() == 600
    assert (both == 1).sum() == 600 - 18 * 20


def test_a_shadow_takes_no_pixels():
    shadow = _opaque_layer(synthetic.KEEP_OWNER)
    owners = synthetic._draw_frame(_black_scene(_opaque_layer(1), shadow), 0.0, (80, 96))[1]
    assert (owners == 1).sum() == 600


def test_an_object_outside_the_frame_has_an_empty_mask():
    scene = _black_scene(_opaque_layer(1, drift_x=70.0))
    areas = [int((synthetic._draw_frame(scene, time, (80, 96))[1] == 1).sum()) for time in (0, 1)]
    assert areas == [600, 0]


def test_motion_blur_keeps_the_mask_in_the_middle_of_the_smear():
    scene = _black_scene(_opaque_layer(1, drift_x=12.0), shutter=1.0)
    canvas, owners = synthetic._draw_frame(scene, 0.0, (80, 96))
    columns = torch.nonzero((owners == 1).any(0))[:, 0].float()
    assert columns.mean() == pytest.approx(47.5, abs=0.6)
    assert (canvas[0] > 0.02).sum() > 600 + 8 * 20


def test_warped_segments_stay_on_their_pixels():
    # Each segment has its own grey, so a pixel's colour says which it is.
    image = np.zeros((120, 160, 4), np.uint8)
    for number, left in enumerate((0, 40, 80, 120), start=1):
        image[:, left : left + 40] = (60 * number,) * 3 + (number,)
    items = [GivenItem("labelled_image", image), GivenItem("background", image[..., :3])]
    given = Materials(items)
    checked = 0
    for seed in range(8):
        for clip in (make_warped_clip(given, CALM, seed), make_image_sample(given, CALM, seed)):
            for frame, masks in zip(clip.frames, clip.masks):
                for mask in masks:
                    # Pixels at the border between two segments mix them.
                    shape = Image.fromarray(mask.astype(np.uint8))
                    inside = np.asarray(shape.filter(ImageFilter.MinFilter(9))) == 1
                    if inside.sum() < 50:
                        continue
                    greys = frame[inside][:, 0].astype(int)
                    assert np.ptp(greys) <= 12  # the greys are 40 or more apart
                    checked += 1
    assert checked > 40


def test_an_image_sample_lists_only_segments_large_enough(materials):
    settings = replace(SETTINGS, min_segment_fraction=0.05)
    for seed in range(8):
        clip = make_image_sample(materials, settings, seed)
        assert clip.masks.mean(axis=(2, 3)).min() > 0.05


# ------------------------------------------------------------------ effects


@pytest.mark.parametrize("effect", EFFECTS)
def test_every_effect_changes_clips(materials, effect):
    # Some effects show only where something moves.
    without = replace(CALM, **{"fast_motion": 1.0, "camera_motion": 1.0, effect: 0.0})
    changed = 0
    for seed in range(4):
        plain = make_clip(materials, without, seed)
        with_effect = make_clip(materials, replace(without, **{effect: 1.0}), seed)
        changed += plain.frames.tobytes() != with_effect.frames.tobytes()
    assert changed >= 2


def test_objects_leave_and_some_come_back(materials):
    settings = replace(CALM, leave=1.0, frame_count=6)
    masks = [make_clip(materials, settings, seed).masks.any(axis=(2, 3)) for seed in range(20)]
    gone = [(~visible[1:]).any() for visible in masks]
    back = [(visible[-1] & (~visible).any(axis=0)).any() for visible in masks]
    assert sum(gone) > 4
    assert sum(back) > 1


def test_objects_are_of_many_sizes(materials):
    areas = np.concatenate([
        make_clip(materials, replace(CALM, frame_count=1), seed).masks[0].mean(axis=(1, 2))
        for seed in range(40)
    ])
    assert np.quantile(areas, 0.1) < 0.02
    assert np.quantile(areas, 0.9) > 0.08


def test_the_camera_moves_the_background(materials):
    settings = replace(CALM, camera_motion=1.0)
    moved = [make_warped_clip(materials, settings, seed).frames for seed in range(4)]
    assert all((frames[0] != frames[-1]).mean() > 0.05 for frames in moved)


# ------------------------------------------------------------------ streams


def test_a_stream_goes_on_after_pickling(materials):
    stream = clip_stream(materials, SETTINGS, start_seed=5, mix={"clip": 1, "warped": 1})
    next(stream)
    copy = pickle.loads(pickle.dumps(stream))
    for _ in range(3):
        assert next(stream).frames.tobytes() == next(copy).frames.tobytes()


def test_workers_with_a_seed_step_share_one_stream(materials):
    mix = {"clip": 0.5, "image": 0.3, "warped": 0.2}
    whole = clip_stream(materials, SETTINGS, start_seed=10, mix=mix)
    workers = [
        clip_stream(materials, SETTINGS, start_seed=10 + index, seed_step=2, mix=mix)
        for index in range(2)
    ]
    for position in range(6):
        expected, actual = next(whole), next(workers[position % 2])
        assert expected.frames.tobytes() == actual.frames.tobytes()


@pytest.mark.parametrize(
    "mix",
    [
        {"film": 1.0},  # no such kind
        {"clip": 0.0},  # nothing to choose
        {"clip": 2.0, "image": -1.0},  # a negative weight
        {},
    ],
)
def test_a_mix_that_cannot_be_is_refused(materials, mix):
    with pytest.raises(ValueError, match="mix"):
        clip_stream(materials, SETTINGS, start_seed=0, mix=mix)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"image_size_hw": (8, 64)}, "image_size_hw"),
        ({"frame_count": 0}, "frame_count"),
        ({"max_objects": 0}, "max_objects"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, named):
    with pytest.raises(ValueError, match=named):
        ClipSettings(**options)


def test_a_negative_seed_is_refused(materials):
    with pytest.raises(ValueError, match="seed"):
        make_clip(materials, SETTINGS, -1)


# ------------------------------------------------------------------ materials


@pytest.mark.parametrize(
    ("kind", "channels", "axes"),
    [
        ("background", 3, 3),
        ("cutout", 4, 3),
        ("photo_cutout", 4, 3),
        ("animation", 4, 4),
        ("labelled_image", 4, 3),
    ],
)
def test_procedural_materials_need_no_files(materials, kind, channels, axes):
    array = materials.get(kind, 0)
    assert array.dtype == np.uint8 and array.ndim == axes and array.shape[-1] == channels


def test_the_cache_stays_within_its_size():
    small = Materials.procedural(1, count_per_kind=2)
    bounded = Materials(
        [item for kind in KINDS for item in small.items(kind)], cache_bytes=1_000_000
    )
    first = bounded.get("background", 0).copy()
    bounded.preload()
    assert bounded._cached_bytes <= 1_000_000
    assert (bounded.get("background", 0) == first).all()


def test_variants_of_an_emoji_share_a_split_and_one_group_in_ten_is_held_out():
    assert materials_module._emoji_group("1f415-200d-1f9ba") == "1f415"
    splits = [split_of(f"name{number}") for number in range(2000)]
    assert 0.07 < splits.count("val") / 2000 < 0.13


def _write_coco(root):
    """A COCO panoptic folder with one image in each half: a disc, a corner, the rest."""
    rng = np.random.default_rng(0)
    ys, xs = np.mgrid[:120, :160]
    ids = np.full((120, 160), 7)
    ids[(ys - 60) ** 2 + (xs - 80) ** 2 < 40**2] = 300
    ids[:40, :40] = 70_000
    for half in ("train2017", "val2017"):
        annotations = root / "panoptic_segmentation" / "annotations"
        (root / "images" / half).mkdir(parents=True)
        (annotations / f"panoptic_{half}").mkdir(parents=True)
        pixels = rng.integers(0, 255, (120, 160, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / half / "1.jpg")
        colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)
        Image.fromarray(colours.astype(np.uint8)).save(annotations / f"panoptic_{half}" / "1.png")
        segments = [(7, 2), (300, 1), (70_000, 1)]
        listing = {
            "categories": [{"id": 1, "isthing": 1}, {"id": 2, "isthing": 0}],
            "annotations": [
                {
                    "file_name": "1.png",
                    "segments_info": [
                        {"id": number, "category_id": category, "iscrowd": 0}
                        for number, category in segments
                    ],
                }
            ],
        }
        (annotations / f"panoptic_{half}.json").write_text(json.dumps(listing))


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A folder prepared from COCO alone, with no package to be had."""

    def fail(*command, cwd):
        if command[0] == "npm":
            raise FileNotFoundError("npm")
        raise subprocess.CalledProcessError(1, command, stderr=b"no network")

    monkeypatch.setattr(materials_module, "_run", fail)
    _write_coco(tmp_path / "coco")
    prepare(tmp_path / "out", coco=tmp_path / "coco")
    return tmp_path / "out"


def test_packages_that_cannot_be_had_are_left_out_with_a_warning(tmp_path, monkeypatch, caplog):
    def fail(*command, cwd):
        raise subprocess.CalledProcessError(1, command, stderr=b"no network")

    monkeypatch.setattr(materials_module, "_run", fail)
    counts = prepare(tmp_path)
    assert not any(counts["train"].values())
    assert "left out" in caplog.text and "no network" in caplog.text


def test_splits_of_a_prepared_folder_are_disjoint(prepared):
    train, val = (Materials.load(prepared, split) for split in ("train", "val"))
    paths = [
        {item.path for kind in KINDS for item in part.items(kind)} for part in (train, val)
    ]
    assert paths[0] and paths[1] and not paths[0] & paths[1]


def test_coco_segments_become_numbers_and_whole_things_become_cutouts(prepared):
    train = Materials.load(prepared, "train")
    labels = train.get("labelled_image", 0)[..., 3]
    assert labels.shape == (120, 160)
    assert (labels[60, 80], labels[5, 5], labels[110, 5]) == (2, 3, 1)
    # The disc; not the thing in the corner, nor the rest, which is no thing.
    assert train.count("photo_cutout") == 1
    height, width, _ = train.get("photo_cutout", 0).shape
    assert 78 <= height <= 84 and 78 <= width <= 84


def test_clips_can_be_made_of_a_folder_that_lacks_kinds(prepared):
    train = Materials.load(prepared, "train")
    assert train.count("cutout") == 0
    for maker in MAKERS.values():
        assert maker(train, SETTINGS, 1).masks.any()


def test_a_folder_without_listing_is_refused(tmp_path):
    with pytest.raises(MaterialsError, match="materials.json"):
        Materials.load(tmp_path)


def test_an_unknown_split_is_refused(prepared):
    with pytest.raises(MaterialsError, match="'test'"):
        Materials.load(prepared, "test")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_composes_the_same_scene():
    materials = Materials.procedural(0, count_per_kind=4)
    settings = ClipSettings(image_size_hw=(96, 96), frame_count=3)
    on_cpu = make_clip(materials, settings, 5)
    on_gpu = make_clip(materials, replace(settings, device="cuda"), 5)
    # Edges may fall on the other side of a rounding.
    assert (on_cpu.masks != on_gpu.masks).mean() < 0.01
    difference = on_cpu.frames.astype(int) - on_gpu.frames
    assert np.abs(difference).mean() < 2
