"""What every benchmark here needs: timing, the machine in words, a video to run on."""

from __future__ import annotations

import os
import platform
import statistics
import time
from pathlib import Path
from typing import Callable, Iterator

import numpy as np
import torch
from PIL import Image


def machine() -> str:
    """Processor, cores and what its arithmetic can do."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    capabilities = torch.cpu.get_capabilities()
    units = [
        name for name in ("amx_bf16", "avx512_bf16", "avx512_f", "avx2") if capabilities.get(name)
    ]
    words = f"{model}, {torch.get_num_threads()} threads, {'/'.join(units) or 'no vector units'}"
    if torch.cuda.is_available():
        words += f", {torch.cuda.get_device_name()}"
    return f"{words}, torch {torch.__version__}"


def seconds(run: Callable[[], object], *, repeats: int = 3, warm_up: int = 1) -> float:
    """Median wall time of `run`."""
    for _ in range(warm_up):
        run()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def step_seconds(frames: Iterator, *, skip: int, count: int) -> float:
    """Median time from one frame of an iterator to the next, the first `skip` left out."""
    for _ in range(skip):
        next(frames)
    times = []
    for _ in range(count):
        started = time.perf_counter()
        next(frames)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def peak_memory_mib() -> float:
    """The most memory this process has held, in MiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_frames(folder: Path, count: int, size_wh: tuple[int, int]) -> Path:
    """JPEG frames of discs moving over a textured ground."""
    folder.mkdir(parents=True, exist_ok=True)
    width, height = size_wh
    random = np.random.default_rng(1)
    coarse = random.integers(40, 200, (9, 16, 3), dtype=np.uint8)
    ground = np.asarray(Image.fromarray(coarse).resize(size_wh, Image.Resampling.BICUBIC))
    y, x = np.mgrid[:height, :width]
    for t in range(count):
        picture = ground.copy()
        for index in range(8):
            phase = t / 25 + index
            cx = width * (0.5 + 0.35 * np.sin(phase + index))
            cy = height * (0.5 + 0.3 * np.cos(1.3 * phase))
            inside = (x - cx) ** 2 + (y - cy) ** 2 < (height / 10) ** 2
            picture[inside] = [(37 * index) % 255, (91 * index + 60) % 255, (200 - 20 * index)]
        Image.fromarray(picture).save(folder / f"{t:05d}.jpg", quality=90)
    return folder


def write_video(path: Path, count: int, size_wh: tuple[int, int]) -> Path:
    """An H.264 video of the same kind, made frame by frame."""
    import av

    width, height = size_wh
    y, x = np.mgrid[:height, :width]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "ultrafast"}
        for t in range(count):
            picture = np.full((height, width, 3), 90, dtype=np.uint8)
            for index in range(2):
                cx = width * (0.5 + 0.3 * np.sin(t / 25 + 3 * index))
                inside = (x - cx) ** 2 + (y - height * (0.3 + 0.4 * index)) ** 2 < (height / 8) ** 2
                picture[inside] = (220, 60 + 120 * index, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def object_boxes(count: int, size_wh: tuple[int, int]) -> list[np.ndarray]:
    """Boxes to prompt with, one an object."""
    width, height = size_wh
    boxes = []
    for index in range(count):
        cx = width * (0.15 + 0.7 * (index % 4) / 3)
        cy = height * (0.3 + 0.4 * (index // 4))
        half = height / 8
        boxes.append(np.array([cx - half, cy - half, cx + half, cy + half], dtype=np.float32))
    return boxes


def isolated(function: Callable, *arguments) -> object:
    """Run in a new process, so that its peak memory is its own."""
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(function, arguments)


def threads_from_environment() -> None:
    """Use as many threads as the machine has cores, or OMP_NUM_THREADS."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(os.cpu_count() or 1)
