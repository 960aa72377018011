import json
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from tests.converters.cases import ADVERSARIAL_MASKS, payload
from label_studio_sdk.converter import brush as sdk_brush

from converters import brush_rle


@pytest.mark.parametrize(
    "mask", ADVERSARIAL_MASKS.values(), ids=ADVERSARIAL_MASKS.keys()
)
def test_a_mask_survives_the_round_trip(mask):
    rle = brush_rle.encode(mask)

    assert all(type(byte) is int for byte in rle[:50])
    np.testing.assert_array_equal(brush_rle.decode(rle, mask.shape), mask)


# Captured from @thi.ng/rle-pack 3.2.12 (the browser's codec), encode() of the
# mask's RGBA bytes with 255 in all four channels of mask pixels.
FROM_THE_BROWSER = [
    (["#"], "00000004391bfc7fe0"),
    (["."], "00000004391bfc6000"),
    (["#..", ".#."], "00000018391bfc7ff6c023ff8c00"),
    (["....................", "####################", ".........#.........."], "000000f0391bfe4f00c9fff88c023ffc4e00"),
    (["#####......................................................................"], "0000012c391bfe13ffe022e000"),
]


@pytest.mark.parametrize(("rows", "expected"), FROM_THE_BROWSER)
def test_the_bytes_are_the_browsers(rows, expected):
    mask = np.array([[c == "#" for c in row] for row in rows])
    assert brush_rle.encode(mask) == list(bytes.fromhex(expected))


def test_a_region_stored_by_the_editor_decodes_and_encodes_to_the_same_bytes():
    for region in payload("brush_regions_from_editor"):
        size = region["original_height"], region["original_width"]
        stored = region["value"]["rle"]

        mask = brush_rle.decode(stored, size)

        assert mask.any() and not mask.all()
        assert brush_rle.encode(mask) == stored


def test_the_sdk_reads_what_we_write():
    mask = ADVERSARIAL_MASKS["five parts with holes"]
    words = sdk_brush.decode_rle(brush_rle.encode(mask))
    np.testing.assert_array_equal(
        words.reshape(*mask.shape, 4), np.repeat(mask[..., None] * 255, 4, axis=2)
    )


@pytest.mark.parametrize("seed", range(8))
def test_we_read_what_the_sdk_writes_with_its_padding(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((7, 5 + seed)) < 0.4
    rle = sdk_brush.encode_rle(np.repeat(mask.ravel().astype(np.uint8) * 255, 4))
    np.testing.assert_array_equal(brush_rle.decode(rle, mask.shape), mask)


def bits(*numbers_and_lengths):
    """Bytes of numbers written one after another, zero-padded."""
    text = "".join(f"{number:0{length}b}" for number, length in numbers_and_lengths)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def header(words, word_size=8, sizes=(3, 4, 8, 16)):
    return [(words, 32), (word_size - 1, 5), *((size - 1, 4) for size in sizes)]


@pytest.mark.parametrize(
    ("stream", "size_hw", "expected"),
    [
        # One literal record with all words: the third pixel's alpha is 0.
        (
            bits(*header(12), (0, 1), (1, 2), (11, 4), *((v, 8) for v in (9, 9, 9, 1, 0, 0, 0, 200, 5, 5, 5, 0))),
            (1, 3),
            [1, 1, 0],
        ),
        # Runs and literals that end inside pixels: only word 3 of 4 counts.
        (
            bits(*header(8), (1, 1), (0, 2), (4, 3), (255, 8), (0, 1), (0, 2), (2, 3), (0, 8), (0, 8), (7, 8)),
            (2, 1),
            [1, 1],
        ),
        # Sizes of one bit, words of one bit.
        (
            bits(*header(4, 1, (1, 1, 1, 1)), (1, 1), (3, 2), (1, 1), (0, 1), (1, 1), (2, 2), (1, 1), (1, 1)),
            (1, 1),
            [1],
        ),
        # The largest sizes, 16 bits each.
        (bits(*header(4, 8, (16, 16, 16, 16)), (1, 1), (0, 2), (3, 16), (255, 8)), (1, 1), [1]),
        # A full zero byte of padding, as the SDK writes.
        (bits(*header(4), (1, 1), (0, 2), (3, 3), (255, 8)) + [0], (1, 1), [1]),
    ],
)
def test_records_that_only_other_writers_use_are_read(stream, size_hw, expected):
    mask = brush_rle.decode(stream, size_hw)
    assert mask.ravel().astype(int).tolist() == expected


def test_antialiased_alpha_is_in_the_mask_from_the_threshold_up():
    alphas = (0, 1, 127, 255)
    runs = [part for a in alphas for part in ((1, 1), (0, 2), (3, 3), (a, 8))]
    stream = bits(*header(16), *runs)

    assert brush_rle.decode(stream, (1, 4)).tolist() == [[False, True, True, True]]
    assert brush_rle.decode(stream, (2, 2), threshold=128).tolist() == [
        [False, False],
        [False, True],
    ]


def test_every_truncation_is_refused():
    mask = ADVERSARIAL_MASKS["five parts with holes"]
    rle = brush_rle.encode(mask)
    for length in range(len(rle)):
        with pytest.raises(ValueError, match="truncated|header"):
            brush_rle.decode(rle[:length], mask.shape)


GOOD = brush_rle.encode(np.ones((2, 3), bool))


@pytest.mark.parametrize(
    ("rle", "size_hw", "message"),
    [
        ([], (2, 3), "header"),
        # Whole, but another picture's size.
        (GOOD, (3, 3), r"holds 24 words, must hold 4 \* H \* W = 36"),
        # A word count that is right, of words that would not fit a byte.
        (bits(*header(4, 16), (1, 1), (0, 2), (3, 3), (1, 16)), (1, 1), "word size 16"),
        # A record that goes on past the last word.
        (bits(*header(4), (1, 1), (0, 2), (4, 3), (255, 8)), (1, 1), "ends at word 5 of 4"),
        # What is no list of bytes.
        (None, (2, 3), "type NoneType"),
        ("AAAA", (2, 3), "type str"),
        (7, (2, 3), "type int"),
        ([0, 256], (2, 3), "from 0 to 255"),
        ([0, -1], (2, 3), "from 0 to 255"),
        ([0, 1.5], (2, 3), "from 0 to 255"),
        ([0, None], (2, 3), "from 0 to 255"),
        (GOOD, (0, 3), "size_hw"),
    ],
)
def test_malformed_streams_are_refused(rle, size_hw, message):
    with pytest.raises(ValueError, match=message):
        brush_rle.decode(rle, size_hw)


def test_a_threshold_that_selects_all_or_nothing_is_refused():
    for threshold in (0, 256):
        with pytest.raises(ValueError, match="threshold"):
            brush_rle.decode(GOOD, (2, 3), threshold)


def test_0_1_integers_are_refused_as_a_mask():
    with pytest.raises(ValueError, match="must be bool"):
        brush_rle.encode(np.ones((2, 3), np.uint8))


def test_random_streams_raise_or_decode_to_a_whole_mask():
    rng = np.random.default_rng(0)
    for _ in range(300):
        body = rng.integers(0, 256, rng.integers(0, 60)).tolist()
        stream = bits(*header(48, int(rng.integers(1, 9)), rng.integers(1, 17, 4).tolist()))
        try:
            mask = brush_rle.decode(stream + body, (3, 4))
        except ValueError:
            continue
        assert mask.shape == (3, 4)


any_mask = npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, max_side=40))


@settings(max_examples=200, deadline=None)
@given(any_mask)
def test_any_mask_survives_the_round_trip_and_the_sdk_reads_it(mask):
    rle = brush_rle.encode(mask)
    np.testing.assert_array_equal(brush_rle.decode(rle, mask.shape), mask)
    alpha = sdk_brush.decode_rle(rle).reshape(*mask.shape, 4)[..., 3]
    np.testing.assert_array_equal(alpha, np.where(mask, 255, 0))


@settings(max_examples=200, deadline=None)
@given(any_mask, st.data())
def test_a_damaged_stream_is_refused_or_still_whole(mask, data):
    rle = brush_rle.encode(mask)
    at = data.draw(st.integers(0, len(rle) - 1))
    rle[at] ^= data.draw(st.integers(1, 255))
    try:
        assert brush_rle.decode(rle, mask.shape).shape == mask.shape
    except ValueError:
        pass


def test_a_count_of_words_larger_than_the_picture_is_refused_before_anything_is_made():
    stream = bits(*header(2**32 - 4), *[(1, 1), (3, 2), (65535, 16), (255, 8)] * 4)
    with pytest.raises(ValueError, match="holds 4294967292 words, must hold"):
        brush_rle.decode(stream, (2, 2))


# --- the browser's codec itself ----------------------------------------------

RLE_PACK = "@thi.ng/rle-pack@3.2.12"
SCRIPT = """
import { encode, decode } from "@thi.ng/rle-pack";
import { readFileSync } from "node:fs";
const masks = JSON.parse(readFileSync(0, "utf-8"));
const answers = masks.map(({ pixels, ours }) => {
  const rgba = new Uint8Array(4 * pixels.length);
  pixels.forEach((pixel, at) => rgba.fill(pixel, 4 * at, 4 * at + 4));
  const alpha = decode(Uint8Array.from(ours)).filter((_, at) => at % 4 === 3);
  return { bytes: [...encode(rgba, rgba.length)], pixels: [...alpha] };
});
process.stdout.write(JSON.stringify(answers));
"""


@pytest.fixture(scope="module")
def rle_pack(tmp_path_factory):
    """Runs @thi.ng/rle-pack under node: [{pixels, ours}] -> [{bytes, pixels}]."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed: @thi.ng/rle-pack cannot be run")
    folder = tmp_path_factory.mktemp("rle_pack")
    (folder / "package.json").write_text('{"type": "module", "private": true}')
    (folder / "check.js").write_text(SCRIPT)
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", RLE_PACK]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"npm could not install {RLE_PACK}: {done.stderr[-500:]}"

    def run(masks):
        done = subprocess.run(
            [node, "check.js"], cwd=folder, input=json.dumps(masks),
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_the_browsers_codec_writes_the_same_bytes_and_reads_ours(rle_pack):
    rng = np.random.default_rng(11)
    masks = [mask for mask in ADVERSARIAL_MASKS.values() if mask.size < 100_000]
    masks += [rng.random(rng.integers(1, 40, 2)) < part for part in np.linspace(0, 1, 60)]
    masks.append(ADVERSARIAL_MASKS["4K blob"][::4, ::4])
    ours = [brush_rle.encode(mask) for mask in masks]

    answers = rle_pack(
        [
            {"pixels": np.where(mask, 255, 0).ravel().tolist(), "ours": rle}
            for mask, rle in zip(masks, ours)
        ]
    )

    assert len(answers) == len(masks)
    for mask, rle, answer in zip(masks, ours, answers):
        assert rle == answer["bytes"]
        assert answer["pixels"] == np.where(mask, 255, 0).ravel().tolist()


def test_we_read_antialiased_strokes_of_the_browsers_codec(rle_pack):
    rng = np.random.default_rng(12)
    alphas = [rng.choice([0, 0, 0, 1, 90, 255, 255], (17, 23)) for _ in range(20)]
    empty = brush_rle.encode(np.zeros((17, 23), bool))

    answers = rle_pack([{"pixels": a.ravel().tolist(), "ours": empty} for a in alphas])

    for alpha, answer in zip(alphas, answers):
        np.testing.assert_array_equal(brush_rle.decode(answer["bytes"], (17, 23)), alpha > 0)
        np.testing.assert_array_equal(
            brush_rle.decode(answer["bytes"], (17, 23), threshold=91), alpha > 90
        )
