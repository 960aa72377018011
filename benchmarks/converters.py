"""The converters beside label-studio-sdk, label-studio-brush-rle-rs and datumaro.

`python -m benchmarks.converters` prints markdown tables (with `--record MACHINE` it
also keeps them in RESULTS.md); ratios are taken side by side in one run. A package
that is not installed is left out:

    pip install label-studio-sdk label-studio-brush-rle-rs datumaro

Needs no torch. Each export runs in a process of its own, so that its peak
memory is its own; the peak is what was resident beyond what was resident
before the export began (read from /proc, so Linux only).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, Iterator

import numpy as np

from benchmarks.report import record
from converters import brush_rle
from converters.coco import save_coco
from converters.masks import encode_mask
from converters.types import AnnotatedVideo, MaskRLE, Track, VideoInfo
from converters.youtube_vis import save_youtube_vis

SIZE_HW = (720, 1280)
DISTINCT_MASKS = 50
"""Exports go round these: making ten thousand would take longer than exporting."""


# --- masks ---------------------------------------------------------------------------


def blob(size_hw: tuple[int, int], turn: float = 0.0) -> np.ndarray:
    """(H, W) bool: a wavy blob over about a fifth of the frame."""
    height, width = size_hw
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y, x = (y / height - 0.5) * 2, (x / width - 0.5 - 0.1 * np.sin(turn)) * 2
    radius = 0.5 + 0.06 * np.sin(7 * np.arctan2(y, x) + turn)
    return np.hypot(y, x) < radius


def five_parts_with_holes(size_hw: tuple[int, int]) -> np.ndarray:
    height, width = size_hw
    mask = np.zeros(size_hw, bool)
    side = height // 5
    for down, across in ((0.05, 0.05), (0.05, 0.8), (0.4, 0.4), (0.75, 0.05), (0.75, 0.8)):
        top, left = int(down * height), int(across * width)
        mask[top : top + side, left : left + side] = True
        mask[top + side // 3 : top + 2 * side // 3, left + side // 3 : left + 2 * side // 3] = 0
    return mask


# --- the brush RLE codec -------------------------------------------------------------

Encode = Callable[[np.ndarray], object]
Decode = Callable[[object, tuple[int, int]], np.ndarray]


def codecs() -> dict[str, tuple[Encode, Decode]]:
    """(H, W) bool mask -> rle and back, by package; ours first."""
    found: dict[str, tuple[Encode, Decode]] = {
        "ours": (brush_rle.encode, lambda rle, size_hw: brush_rle.decode(rle, size_hw))
    }
    modules = {
        "label-studio-sdk": "label_studio_sdk.converter.brush",
        "label-studio-brush-rle-rs": "label_studio_brush_rle_rs",
    }
    for package, module_name in modules.items():
        if importlib.util.find_spec(module_name.partition(".")[0]) is not None:
            module = importlib.import_module(module_name)
            found[package] = (_flat_encode(module.encode_rle), _flat_decode(module.decode_rle))
    return found


def _flat_encode(encode_rle: Callable) -> Encode:
    def encode(mask: np.ndarray) -> object:
        # What the SDK's own mask2rle does with a mask.
        flat = np.repeat(mask.ravel().astype(np.uint8) * 255, 4)
        return encode_rle(flat, 8, [3, 4, 8, 16])  # its defaults, which -rs asks for

    return encode


def _flat_decode(decode_rle: Callable) -> Decode:
    def decode(rle: object, size_hw: tuple[int, int]) -> np.ndarray:
        return np.reshape(decode_rle(rle, False), (*size_hw, 4))[:, :, 3] > 0

    return decode


def codec_table(repeats: int) -> list[str]:
    """Milliseconds of each codec on each mask, and how many times faster ours is."""
    masks = {
        "blob, 1280 x 720": blob((720, 1280)),
        "blob, 1920 x 1080": blob((1080, 1920)),
        "five parts with holes, 1920 x 1080": five_parts_with_holes((1080, 1920)),
        "blob, 3840 x 2160": blob((2160, 3840)),
    }
    packages = codecs()
    header = ["mask", "direction", *(f"{name}, ms" for name in packages)]
    lines = [_row(header), _row(["---"] * len(header))]
    for mask_name, mask in masks.items():
        rle = brush_rle.encode(mask)
        for name, (encode, decode) in packages.items():
            assert (decode(rle, mask.shape) == mask).all(), (name, mask_name)
            assert (brush_rle.decode(list(encode(mask)), mask.shape) == mask).all(), name
        for direction in ("encode", "decode"):
            runs = {
                name: (lambda f=pair[0]: f(mask))
                if direction == "encode"
                else (lambda f=pair[1]: f(rle, mask.shape))
                for name, pair in packages.items()
            }
            times = _milliseconds(runs, repeats)
            ours = times["ours"]
            cells = [
                f"{value:.2f}" if name == "ours" else f"{value:.2f} ({value / ours:.1f}x ours)"
                for name, value in times.items()
            ]
            lines.append(_row([mask_name, direction, *cells]))
    return lines


def _milliseconds(runs: dict[str, Callable], repeats: int) -> dict[str, float]:
    """Medians, the runs taken in turn so that a busy moment hits all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            times[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}


# --- exports -------------------------------------------------------------------------


def _masks() -> list[MaskRLE]:
    return [encode_mask(blob(SIZE_HW, turn / 8)) for turn in range(DISTINCT_MASKS)]


def _brush_regions() -> list[list[int]]:
    return [list(brush_rle.encode(blob(SIZE_HW, turn / 8))) for turn in range(DISTINCT_MASKS)]


def _video(masks: dict[int, MaskRLE]) -> AnnotatedVideo:
    count = len(masks)
    info = VideoInfo(
        SIZE_HW[1], SIZE_HW[0], count, 25.0, tuple(i / 25 for i in range(count)), count / 25
    )
    return AnnotatedVideo("clip", info, (Track("car", ("Car",), masks),))


def ours_from_tracks(save: Callable, count: int, folder: Path) -> Callable[[], Path]:
    masks = _masks()
    video = _video({i: masks[i % DISTINCT_MASKS] for i in range(count)})

    def export() -> Path:
        save(folder / "out.json", [video])
        return folder / "out.json"

    return export


def _save_compressed_youtube_vis(path: Path, videos: list[AnnotatedVideo]) -> None:
    save_youtube_vis(path, videos, compressed=True)


def ours_coco(count: int, folder: Path) -> Callable[[], Path]:
    return ours_from_tracks(save_coco, count, folder)


def ours_youtube_vis(count: int, folder: Path) -> Callable[[], Path]:
    return ours_from_tracks(save_youtube_vis, count, folder)


def ours_youtube_vis_compressed(count: int, folder: Path) -> Callable[[], Path]:
    return ours_from_tracks(_save_compressed_youtube_vis, count, folder)


def ours_brush_to_coco(count: int, folder: Path) -> Callable[[], Path]:
    regions = _brush_regions()

    def export() -> Path:
        masks = {
            i: encode_mask(brush_rle.decode(regions[i % DISTINCT_MASKS], SIZE_HW))
            for i in range(count)
        }
        save_coco(folder / "out.json", [_video(masks)])
        return folder / "out.json"

    return export


def sdk_brush_to_coco(count: int, folder: Path) -> Callable[[], Path]:
    """It writes polygons of the outer contours, without holes."""
    from label_studio_sdk.converter.exports.brush_to_coco import convert_to_coco

    regions = _brush_regions()

    def items() -> Iterator[dict]:
        for index in range(count):
            region = {
                "type": "brushlabels",
                "brushlabels": ["Car"],
                "rle": regions[index % DISTINCT_MASKS],
                "original_width": SIZE_HW[1],
                "original_height": SIZE_HW[0],
            }
            name = f"clip/{index:05d}.jpg"
            yield {
                "id": index,
                "input": {"image": name},
                "output": {"tag": [region]},
                "completed_by": {"email": "someone"},
            }

    return lambda: Path(convert_to_coco(items(), str(folder)))


def datumaro_coco(count: int, folder: Path) -> Callable[[], Path]:
    from datumaro import Dataset, DatasetItem
    from datumaro.components.annotation import RleMask
    from datumaro.components.media import Image

    encoded = [
        {"size": [mask.height, mask.width], "counts": mask.counts.encode()} for mask in _masks()
    ]

    def items() -> Iterator[DatasetItem]:
        for index in range(count):
            mask = RleMask(encoded[index % DISTINCT_MASKS], label=0, id=index + 1, group=index + 1)
            picture = Image.from_file(path=f"{index:05d}.jpg", size=SIZE_HW)
            yield DatasetItem(f"clip/{index:05d}", media=picture, annotations=[mask])

    def export() -> Path:
        # A list: of an iterator it exports nothing, as it goes over it twice.
        dataset = Dataset.from_iterable(list(items()), categories=["Car"])
        dataset.export(
            str(folder), "coco_instances", save_media=False, segmentation_mode="mask"
        )
        (written,) = folder.glob("annotations/*.json")
        return written

    return export


def measure(prepare: Callable[[int, Path], Callable[[], Path]], count: int) -> dict:
    """Seconds, MiB of peak memory beyond the start, MB of file."""
    with tempfile.TemporaryDirectory() as folder:
        export = prepare(count, Path(folder))
        before = _start_peak_mib()
        started = time.perf_counter()
        written = export()
        seconds = time.perf_counter() - started
        after = _peak_mib()
        annotations = json.loads(written.read_text())["annotations"]
        masks = sum(len(a.get("areas", [a.get("area")])) for a in annotations)
        assert masks >= count, f"{masks} masks written of {count}"
        return {
            "frames": count,
            "seconds": seconds,
            "memory": after - before,
            "megabytes": written.stat().st_size / 1e6,
        }


def _start_peak_mib() -> float:
    """Resident now; from here on the peak counts anew (Linux).

    Not getrusage: a new process starts with the peak of the one that made it.
    """
    Path("/proc/self/clear_refs").write_text("5")
    return _status_mib("VmRSS")


def _peak_mib() -> float:
    return _status_mib("VmHWM")


def _status_mib(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {field}")


def isolated(function: Callable, *arguments) -> dict:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def export_table(frames: int, sdk_frames: int) -> list[str]:
    """Each export at two lengths: ours must not take more memory for more frames."""
    has_sdk = importlib.util.find_spec("label_studio_sdk") is not None
    has_datumaro = importlib.util.find_spec("datumaro") is not None
    lengths = (frames // 10, frames)
    plan: list[tuple[str, str, Callable, tuple[int, ...], str | None]] = [
        ("tracks to COCO", "ours", ours_coco, lengths, None),
        ("tracks to YouTube-VIS", "ours", ours_youtube_vis, lengths, None),
        ("tracks to YouTube-VIS, compressed", "ours", ours_youtube_vis_compressed, lengths, None),
        ("brush regions to COCO", "ours", ours_brush_to_coco, (sdk_frames,), None),
    ]
    if has_datumaro:
        plan.insert(1, ("tracks to COCO", "datumaro", datumaro_coco, lengths, "tracks to COCO"))
    if has_sdk:
        name = "brush regions to COCO"
        plan.append((name, "label-studio-sdk", sdk_brush_to_coco, (sdk_frames,), name))
    header = ["export", "by", "frames", "seconds", "memory, MiB", "file, MB"]
    lines, ours = [_row(header), _row(["---"] * len(header))], {}
    for export, package, prepare, counts, compared in plan:
        for count in counts:
            answer = isolated(measure, prepare, count)
            if compared is None:
                ours[export, count] = answer
            lines.append(_export_row(export, package, answer, ours.get((compared, count))))
    return lines


def _export_row(export: str, package: str, answer: dict, beside: dict | None) -> str:
    seconds, memory = f"{answer['seconds']:.2f}", f"{answer['memory']:.0f}"
    if beside is not None:
        seconds += f" ({answer['seconds'] / beside['seconds']:.1f}x ours)"
    frames = f"{answer['frames']:,}"
    return _row([export, package, frames, seconds, memory, f"{answer['megabytes']:.1f}"])


# --- the report ----------------------------------------------------------------------


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def versions() -> str:
    found = []
    for package in ("label-studio-sdk", "label-studio-brush-rle-rs", "datumaro", "numpy"):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    python = platform.python_version()
    return f"{os.cpu_count()} cores ({platform.machine()}), Python {python}, " + ", ".join(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="of each codec run; the median")
    parser.add_argument("--frames", type=int, default=10_000, help="of an export")
    parser.add_argument(
        "--sdk-frames", type=int, default=500,
        help="of the export from brush regions, which the SDK decodes at tens of ms a frame",
    )
    parser.add_argument(
        "--record", metavar="MACHINE", help="keep the tables in RESULTS.md, measured on this machine"
    )
    options = parser.parse_args()
    lines = ["### Brush RLE codec, medians", "", *codec_table(options.repeats)]
    print("\n".join(lines), flush=True)
    title = f"### Exports, one object at {SIZE_HW[1]} x {SIZE_HW[0]}"
    exports = ["", title, "", *export_table(options.frames, options.sdk_frames)]
    print("\n".join(exports), f"\n\n({versions()})")
    if options.record:
        arguments = [a for a in sys.argv[1:] if a not in ("--record", options.record)]
        command = " ".join(["python -m benchmarks.converters", *arguments])
        figures = {"command": command, "lines": [*lines, *exports, "", f"{versions()}."]}
        record("converters", figures, machine=options.record)


if __name__ == "__main__":
    main()
