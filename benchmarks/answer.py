"""What a person's request costs around the tracking itself: `python -m benchmarks.answer`.

The service with the queue empty, in this process; the model is a rule (a disc that moves), so
that what is left is the service's own: reading, queueing, storing, building the regions. Counted
beside the time: how often the regions are built, SQLite's transactions, and how often the
request is named. Works on earlier commits too: for figures of before and after run it in
worktrees of both, in turn, and give the earlier one's output as `--before`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Iterator
from unittest import mock

import numpy as np

from backend import propagation
from backend.app import create_app
from backend.model import LoadedModel
from backend.settings import Settings
from backend.sqlite_file import SqliteFile
from benchmarks.harness import machine, write_video
from benchmarks.report import record
from converters.types import FrameMasks
from sam2_model.tracker import passes
from sam2_model.video import open_frame_source

_CONFIG = (
    '<View><Labels name="labels" toName="video"><Label value="Car"/></Labels>'
    '<Video name="video" value="$video" framerate="25"/>'
    '<VideoRectangle name="box" toName="video"/></View>'
)
_SIZE = (320, 240)
_COUNTED = {
    "builds": (propagation, "track_to_video_region"),
    "names": (propagation, "fingerprint"),
    "transactions": (SqliteFile, "transaction"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--requests", type=int, default=5)
    parser.add_argument("--before", type=Path, help="the output of an earlier commit")
    parser.add_argument("--record", action="store_true", help="write it to RESULTS.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.frames, options.requests)
    print(json.dumps(figures, indent=1))
    if options.record:
        before = None if options.before is None else json.loads(options.before.read_text())
        record("answer", {"before": before, "after": figures}, machine=machine())


def measure(folder: Path, frames: int, requests: int) -> dict[str, Any]:
    """Medians over the requests: each of a box that nobody has asked about."""
    write_video(folder / "clip.mp4", frames, _SIZE)
    settings = Settings(
        label_studio_local_files_root=folder, media_cache=folder / "cache",
        data_folder=folder / "service", device="cpu", dtype="float32",
    )
    model = _Rule()
    app = create_app(settings, load=lambda _: LoadedModel(model.steps, model.open, model.open))
    service = app.extensions["sam2"]
    try:
        service.model.wait()
        client = app.test_client()
        _ask(client, 0, frames)  # decodes the video for the first time
        answers = [_measured(client, number, frames, model) for number in range(1, requests + 1)]
    finally:
        service.stop()
    names = answers[0].keys()
    return {
        "frames": frames, "requests": requests, "load": round(os.getloadavg()[0], 1),
        **{name: round(statistics.median(a[name] for a in answers), 3) for name in names},
    }


def _measured(client: Any, number: int, frames: int, model: _Rule) -> dict[str, float]:
    with _counted() as counts, _timed_builds() as build_seconds:
        begin, cpu_begin = time.perf_counter(), time.process_time()
        _ask(client, number, frames)
        seconds = time.perf_counter() - begin
        time.sleep(0.5)  # what the job does after the answer is counted too
        cpu_seconds = time.process_time() - cpu_begin
    return {
        "seconds": seconds, "cpu_seconds": cpu_seconds, "tracking_seconds": model.seconds,
        "build_seconds": sum(build_seconds), **counts,
    }


def _ask(client: Any, number: int, frames: int) -> None:
    place = {"x": 20 + number, "y": 20, "width": 20, "height": 20, "rotation": 0}
    region = {
        "id": f"r{number}", "from_name": "box", "to_name": "video", "type": "videorectangle",
        "value": {
            "labels": ["Car"], "framesCount": frames, "duration": frames / 25,
            "sequence": [{"frame": 1, "enabled": True, "time": 0.04, **place}],
        },
    }
    task = {"id": number, "project": 1, "data": {"video": "/data/local-files/?d=clip.mp4"}}
    answer = client.post("/predict", json={
        "tasks": [task], "project": "1.1", "label_config": _CONFIG,
        "params": {"context": {"result": [region]}},
    })
    (item,) = answer.json["results"]
    assert item["result"][0]["value"]["sequence"], "an empty answer"


class _Rule:
    """A disc that moves."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """That the last track took, the service's own work on each frame included."""
        rows, columns = np.mgrid[: _SIZE[1], : _SIZE[0]]
        self._masks = [
            (columns - 60 - number) ** 2 + (rows - 120) ** 2 < 40**2 for number in range(200)
        ]

    def open(self, files: Any) -> Any:
        return _State(files)

    def steps(
        self, state: Any, prompts: Any, frame_range: Any, *, bookmark: Any = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[FrameMasks | None]:
        begin = time.perf_counter()
        ids = tuple(dict.fromkeys(prompt.object_id for prompt in prompts))
        yield None
        for order in passes(frame_range, [prompt.frame_index for prompt in prompts]):
            for index in order:
                if is_cancelled():
                    return
                mask = self._masks[index % 200]
                scores = np.full(len(ids), 3.0, np.float32)
                yield FrameMasks(index, ids, np.stack([mask] * len(ids)), scores)
        self.seconds = time.perf_counter() - begin


class _State:
    def __init__(self, files: Any) -> None:
        self._stack = contextlib.ExitStack()
        self.source = self._stack.enter_context(open_frame_source(files))

    def close(self) -> None:
        self._stack.close()


@contextlib.contextmanager
def _counted() -> Iterator[Counter]:
    """How often the functions of `_COUNTED` are called meanwhile."""
    counts: Counter = Counter(dict.fromkeys(_COUNTED, 0))

    def counting(name: str, function: Callable) -> Callable:
        def call(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return function(*arguments, **options)

        return call

    with contextlib.ExitStack() as stack:
        for name, (owner, function) in _COUNTED.items():
            replaced = counting(name, getattr(owner, function))
            stack.enter_context(mock.patch.object(owner, function, replaced))
        yield counts


@contextlib.contextmanager
def _timed_builds() -> Iterator[list[float]]:
    seconds: list[float] = []
    build = propagation.track_to_video_region

    def timed(*arguments: Any, **options: Any) -> Any:
        begin = time.perf_counter()
        try:
            return build(*arguments, **options)
        finally:
            seconds.append(time.perf_counter() - begin)

    with mock.patch.object(propagation, "track_to_video_region", timed):
        yield seconds


if __name__ == "__main__":
    main()
