"""The embedded queue beside Redis with one to four workers: `python -m benchmarks.queue`.

Real processes with the embedded model on the CPU, over HTTP; each worker has a core to itself as
far as there are any. Needs a redis-server.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping

import av
import numpy as np

from backend.jobs.distributed.connection import connect
from backend.jobs.distributed.queue import DistributedQueue
from backend.jobs.distributed.store import RedisJobStore
from backend.jobs.distributed.worker import DistributedWorker
from backend.jobs.handles import Outcome
from backend.jobs.queue import JobQueue
from backend.jobs.store import JobStore
from backend.jobs.types import Job, JobKind, JobSpec
from backend.scheduler import Priority
from benchmarks.harness import machine
from benchmarks.report import record

_FRAMES, _WIDTH, _HEIGHT = 4, 320, 240
_CONFIG = (
    '<View><Labels name="l" toName="v"><Label value="A"/></Labels>'
    '<Video name="v" value="$video" framerate="25"/><VideoRectangle name="b" toName="v"/></View>'
)
_START_SECONDS = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--empty-jobs", type=int, default=500)
    parser.add_argument("--waiting", type=int, default=1000, help="batch jobs that wait")
    parser.add_argument("--people", type=int, default=20, help="interactive calls meanwhile")
    parser.add_argument("--seconds", type=float, default=40.0, help="for the throughput")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options)
    figures["load"] = [round(value, 1) for value in os.getloadavg()]
    record("queue", figures, machine=machine())
    print(json.dumps(figures, indent=1))


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    _write_video(folder / "clip.mp4")
    figures: dict[str, Any] = {"frames": _FRAMES, "waiting": options.waiting, "engines": {}}
    with _redis(folder) as url:
        figures["empty"] = {
            "embedded": _empty_jobs(_embedded(folder), options.empty_jobs),
            "redis": _empty_jobs(_distributed(url), options.empty_jobs),
        }
        for workers in (0, 1, 2, 4):
            name = f"redis, {workers} worker{'s' * (workers > 1)}" if workers else "embedded"
            _flush(url)
            with _service(folder, url if workers else None, workers) as service:
                figures["engines"][name] = _under_load(service, options)
    return figures


# --- the queue alone ---------------------------------------------------------


class _Nothing:
    def run(self, handle: Any) -> Outcome:
        return Outcome()


def _makers() -> dict[JobKind, Callable[[Job], _Nothing]]:
    return {JobKind.TRACK: lambda job: _Nothing()}


def _embedded(folder: Path) -> Any:
    store = JobStore(folder / "empty.sqlite3")
    return JobQueue(store, _makers(), interactive_places=8, max_queued_per_project=10**6)


def _distributed(url: str) -> Any:
    store = RedisJobStore(connect(url, patience_seconds=5))
    queue = DistributedQueue(store, max_queued_per_project=10**6, view=lambda *_: None)
    worker = DistributedWorker(
        RedisJobStore(connect(url, patience_seconds=5)), _makers(), interactive_places=8,
        snapshot=lambda work, is_final: None, hold_seconds=60,
    )
    start, stop = queue.start, queue.stop
    queue.start = lambda: (start(), worker.start())
    queue.stop = lambda: (worker.stop(), stop())
    return queue


def _empty_jobs(queue: Any, count: int) -> dict[str, float]:
    """Milliseconds a job: to submit, from order to end in a row, and of a person's round trip."""
    left, all_done = [count], threading.Event()

    def ended(job: Job) -> None:
        left[0] -= 1
        if left[0] == 0:
            all_done.set()

    queue.on_finished = ended
    queue.start()
    begin = time.perf_counter()
    for number in range(count):
        queue.submit(_empty(number, Priority.BATCH))
    submitted = time.perf_counter()
    all_done.wait(_START_SECONDS)
    done = time.perf_counter()
    trips = []
    for number in range(100):
        asked = time.perf_counter()
        handle = queue.submit(_empty(count + number, Priority.INTERACTIVE), is_awaited=True)
        handle.wait(60)
        queue.leave(
            handle, Priority.INTERACTIVE, goes_on_with=Priority.WEBHOOK, posts_prediction=False
        )
        trips.append(time.perf_counter() - asked)
    queue.stop()
    return {
        "submit_ms": 1e3 * (submitted - begin) / count,
        "job_ms": 1e3 * (done - begin) / count,
        "person_ms": 1e3 * statistics.median(trips),
    }


def _empty(number: int, priority: Priority) -> JobSpec:
    return JobSpec(
        kind=JobKind.TRACK, request={"number": number}, key=f"{priority}-{number}",
        priority=priority, project_id=1, task_id=number,
    )


# --- the whole service -------------------------------------------------------


def _under_load(url: str, options: argparse.Namespace) -> dict[str, float]:
    alone = [_person(url, 10_000 + number) for number in range(options.people)]
    for number in range(options.waiting):
        _ask(f"{url}/api/jobs", _order(number))
    begin, before = time.perf_counter(), _done(url)
    time.sleep(options.seconds)
    rate = (_done(url) - before) / (time.perf_counter() - begin)
    beside = [_person(url, 20_000 + number) for number in range(options.people)]
    return {
        "frames_per_second": rate * _FRAMES,
        "alone_p50": _quantile(alone, 0.5),
        "alone_p95": _quantile(alone, 0.95),
        "beside_p50": _quantile(beside, 0.5),
        "beside_p95": _quantile(beside, 0.95),
        "still_waiting": _ask(f"{url}/api/jobs?limit=1")["counts"]["queued"],
    }


def _person(url: str, task_id: int) -> float:
    """Seconds until a person has the whole track of a new box."""
    order = _order(task_id)
    body = {
        "tasks": [order["task"]], "label_config": _CONFIG, "project": "1.1",
        "params": {"context": {"result": order["results"]}},
    }
    begin = time.perf_counter()
    (item,) = _ask(f"{url}/predict", body)["results"]
    assert item["result"], "an empty answer"
    return time.perf_counter() - begin


def _order(task_id: int) -> dict[str, Any]:
    place = {"x": 20 + task_id % 997 / 50, "y": 20, "width": 20, "height": 20, "rotation": 0}
    box = {
        "id": f"r{task_id}", "from_name": "b", "to_name": "v", "type": "videorectangle",
        "value": {
            "labels": ["A"], "framesCount": _FRAMES, "duration": _FRAMES / 25,
            "sequence": [{"frame": 1, "enabled": True, "time": 0.04, **place}],
        },
    }
    task = {"id": task_id, "project": 1, "data": {"video": "/data/local-files/?d=clip.mp4"}}
    return {"task": task, "label_config": _CONFIG, "results": [box]}


def _done(url: str) -> int:
    return _ask(f"{url}/api/jobs?limit=1")["counts"]["done"]


def _quantile(values: list[float], share: float) -> float:
    return float(np.quantile(values, share))


def _ask(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=120) as answer:
        return json.load(answer)


# --- processes ---------------------------------------------------------------


@contextlib.contextmanager
def _service(folder: Path, queue_url: str | None, workers: int) -> Iterator[str]:
    """Its URL, once it is ready."""
    port, name = _free_port(), f"{workers}-workers"
    variables = {
        "SAM2_DEVICE": "cpu", "OMP_NUM_THREADS": "1", "SAM2_MEDIA_CACHE": str(folder / "cache"),
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(folder),
    }
    if queue_url is not None:
        variables["SAM2_QUEUE"] = queue_url
    every_core = sorted(os.sched_getaffinity(0))
    commands = [("web", ["serve", "--port", str(port)], every_core)]
    commands += [
        (f"worker{number}", ["worker"], [every_core[number % len(every_core)]])
        for number in range(workers)
    ]
    url = f"http://127.0.0.1:{port}"
    with contextlib.ExitStack() as stack:
        for part, arguments, cores in commands:
            data = {"SAM2_DATA_FOLDER": str(folder / name / part)}
            stack.enter_context(_process(folder, arguments, variables | data, cores))
        _wait(lambda: _is_ready(url, queue_url, workers))
        yield url


def _is_ready(url: str, queue_url: str | None, workers: int) -> bool:
    with contextlib.suppress(urllib.error.URLError, ConnectionError):
        if _ask(f"{url}/health")["model"] != "ready":
            return False
        if queue_url is None:
            return True
        with contextlib.closing(RedisJobStore(connect(queue_url, patience_seconds=5))) as store:
            return len(store.live_workers()) == workers
    return False


@contextlib.contextmanager
def _process(
    folder: Path, arguments: list[str], variables: Mapping[str, str], cores: list[int]
) -> Iterator[None]:
    with open(folder / "log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "backend.cli", *arguments], env=os.environ | variables,
            stdout=log, stderr=subprocess.STDOUT,
        )
        os.sched_setaffinity(process.pid, cores)  # before it has any thread
    try:
        yield
    finally:
        process.terminate()
        process.wait(120)


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[str]:
    port = _free_port()
    process = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder),
         "--appendonly", "yes", "--save", ""], stdout=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"redis://127.0.0.1:{port}/0"
    try:
        with connect(url, patience_seconds=30) as client:
            client.ping()
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _flush(url: str) -> None:
    with connect(url, patience_seconds=5) as client:
        client.flushall()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + _START_SECONDS
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError("the service is not ready")
        time.sleep(0.2)


def _write_video(path: Path) -> None:
    """A bright square that moves over grain."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = _WIDTH, _HEIGHT, "yuv420p"
        for index in range(_FRAMES):
            noise = np.random.default_rng(index).integers(0, 40, (_HEIGHT, _WIDTH, 3))
            picture = noise.astype(np.uint8)
            picture[60:120, 80 + 4 * index : 140 + 4 * index] = (220, 160, 60)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()
