"""Many at once on one real service: `python -m benchmarks.load --minutes 5`.

Two hundred clients, each with one request open at any time: people who ask for a box to be
tracked, batches, saved annotations and health checks. Whatever is answered but success, or
"too many" with a time to come back, counts as an error.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

import numpy as np

from backend.processes import free_port, get_json, running_backend
from benchmarks.harness import write_video

CONFIG = (
    '<View><Labels name="videoLabels" toName="video"><Label value="Car"/></Labels>'
    '<Video name="video" value="$video" framerate="25"/>'
    '<VideoRectangle name="box" toName="video"/></View>'
)
KINDS = ("interactive",) * 4 + ("batch",) * 2 + ("webhook",) * 2 + ("health",) * 2
"""What the clients do, a tenth each."""
FRAMES, SIZE = 25, (320, 240)
PROJECTS = 4
_SAMPLE_SECONDS = 5.0


@dataclass
class Measured:
    """What all clients saw; times in seconds."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Of answered requests, by kind."""
    statuses: Counter = field(default_factory=Counter)
    """By kind and status; 0: no answer."""
    errors: list[str] = field(default_factory=list)
    samples: list[dict[str, float]] = field(default_factory=list)
    """The service's process now and then: `minute`, `memory_mib`, `files`, `threads`."""

    @property
    def error_count(self) -> int:
        return len(self.errors)

    def percentile(self, kind: str, percent: float) -> float:
        return float(np.percentile(self.seconds[kind], percent))

    def memory_growth(self, first_minute: float, last_minute: float) -> float:
        """Share by which the mean memory, a quarter of a minute around two times, grew."""

        def mean(at: float) -> float:
            return statistics.mean(
                s["memory_mib"] for s in self.samples if abs(s["minute"] - at) <= 0.25
            )

        return mean(last_minute) / mean(first_minute) - 1


def make_videos(folder: Path, count: int) -> list[str]:
    """Videos of different lengths; their paths."""
    return [
        str(write_video(folder / f"{number}.mp4", FRAMES + number, SIZE))
        for number in range(count)
    ]


class Clients:
    """`count` threads that ask `url` until they are stopped."""

    def __init__(self, url: str, videos: list[str], measured: Measured) -> None:
        self._url, self._videos, self._measured = url, videos, measured
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []

    def start(self, count: int) -> None:
        for number in range(count):
            kind = KINDS[number % len(KINDS)]
            thread = threading.Thread(target=self._run, args=(kind, number), daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(200)

    def _run(self, kind: str, number: int) -> None:
        chance = random.Random(number)
        while not self._stop.is_set():
            pause = self._ask(kind, chance)
            self._stop.wait(pause)

    def _ask(self, kind: str, chance: random.Random) -> float:
        """Seconds to wait before the next request."""
        path, body = self._request(kind, chance)
        began = time.perf_counter()
        status, problem, retry_after = 0, "", None
        try:
            data = None if body is None else json.dumps(body).encode()
            asked = urllib.request.Request(
                f"{self._url}{path}", data, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(asked, timeout=150) as answer:
                answer.read()
                status = answer.status
        except urllib.error.HTTPError as error:
            with error:
                status, retry_after = error.code, error.headers.get("Retry-After")
                problem = f"{kind}: {status} {error.read()[:200]!r}"
        except OSError as error:
            problem = f"{kind}: {error}"
        seconds = time.perf_counter() - began
        is_refusal = status == 429 and retry_after is not None
        with self._lock:
            self._measured.statuses[kind, status] += 1
            if status == 200:
                self._measured.seconds[kind].append(seconds)
            elif not is_refusal:
                self._measured.errors.append(problem)
        # A person thinks before the next request; one who is refused comes back as told.
        return float(retry_after) if is_refusal else chance.uniform(0.2, 1.0)

    def _request(self, kind: str, chance: random.Random) -> tuple[str, Any]:
        if kind == "health":
            return "/health", None
        task = self._task(chance)
        if kind == "interactive":
            context = {"result": [_box(chance)]}
            return "/predict", {
                "tasks": [task], "label_config": CONFIG, "params": {"context": context}
            }
        if kind == "batch":
            tasks = [self._task(chance, has_annotation=True) for _ in range(5)]
            return "/predict", {"tasks": tasks, "label_config": CONFIG, "params": {"context": None}}
        return "/webhook", {
            "action": "ANNOTATION_CREATED", "task": task,
            "annotation": {"id": 1, "result": [_box(chance)]},
            "project": {"id": task["project"], "label_config": CONFIG},
        }

    def _task(self, chance: random.Random, *, has_annotation: bool = False) -> dict[str, Any]:
        number = chance.randrange(1000)
        annotations = [{"id": 1, "result": [_box(chance)], "updated_at": "2026"}]
        return {
            "id": number, "project": 1 + number % PROJECTS,
            "data": {"video": chance.choice(self._videos)},
            "annotations": annotations if has_annotation else [], "drafts": [], "predictions": [],
        }


def _box(chance: random.Random) -> dict[str, Any]:
    """One of forty, so that some are known already."""
    place = {"x": 10 + chance.randrange(40) / 2, "y": 20, "width": 25, "height": 35, "rotation": 0}
    keyframe = {"frame": 1, **place, "enabled": True, "time": 0.04}
    return {
        "id": "a", "from_name": "box", "to_name": "video", "type": "videorectangle",
        "value": {"labels": ["Car"], "sequence": [keyframe]},
    }


def process_state(url: str) -> dict[str, float]:
    """Memory, open files and threads of the service's process, as the kernel has them."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=150) as answer:
        lines = answer.read().decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {
        "memory_mib": float(values["process_resident_memory_bytes"]) / 2**20,
        "files": float(values["process_open_fds"]),
        "threads": float(values["sam2_threads"]),
    }


def run_load(
    folder: Path,
    *,
    clients: int,
    seconds: float,
    say: Callable[[str], None] = lambda line: None,
    **variables: str,
) -> Measured:
    """Start a service in `folder`, load it, stop it, and tell what was seen.

    `variables` are more of the service's settings.
    """
    videos = make_videos(folder, 6)
    measured = Measured()
    settings = {
        "SAM2_MODEL": "demo", "SAM2_DEVICE": "cpu", "SAM2_MEDIA_ROOTS": str(folder),
        "SAM2_DATA_FOLDER": str(folder / "service"), "SAM2_MEDIA_CACHE": str(folder / "cache"),
        **variables,
    }
    with running_backend(log=folder / "log", port=free_port(), variables=settings) as url:
        load = Clients(url, videos, measured)
        began = time.monotonic()
        load.start(clients)
        while (passed := time.monotonic() - began) < seconds:
            sample = {"minute": passed / 60, **process_state(url)}
            measured.samples.append(sample)
            say(f"{sample}  errors {measured.error_count}")
            time.sleep(min(_SAMPLE_SECONDS, max(0.1, seconds - passed)))
        load.stop()
        assert get_json(f"{url}/health")["status"] == "UP"
        measured.samples.append({"minute": passed / 60, **process_state(url)})
    return measured


def report(measured: Measured, *, clients: int, minutes: float) -> str:
    """The figures as the section of LOAD.md."""
    lines = [
        f"{clients} clients for {minutes:g} minutes, one request open each: people's boxes, "
        "batches of five tasks, webhooks, health checks.",
        "",
        "| request | answered | 429 with Retry-After | p50, s | p99, s |",
        "|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(KINDS):
        answered = measured.statuses[kind, 200]
        times = [f"{measured.percentile(kind, p):.3f}" for p in (50, 99)] if answered else ["", ""]
        lines.append(
            f"| {kind} | {answered} | {measured.statuses[kind, 429]} | {times[0]} | {times[1]} |"
        )
    first, last = measured.samples[0], measured.samples[-1]
    growth = ""
    if minutes >= 3:
        growth = f" ({measured.memory_growth(2, minutes - 0.3):+.1%} from minute 2 to {minutes:g})"
    peak = max(sample["threads"] for sample in measured.samples)
    lines += [
        "",
        f"Errors: {measured.error_count}. Memory {first['memory_mib']:.0f} MiB at first, "
        f"{last['memory_mib']:.0f} at the end{growth}; open files {first['files']:.0f} and "
        f"{last['files']:.0f}, threads {first['threads']:.0f} and {last['threads']:.0f} "
        f"(at most {peak:.0f}).",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--clients", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measured = run_load(
            Path(folder), clients=options.clients, seconds=60 * options.minutes,
            say=lambda line: print(line, file=sys.stderr, flush=True),
        )
    print(report(measured, clients=options.clients, minutes=options.minutes))
    for problem, count in Counter(measured.errors).most_common(10):
        print(f"{count} x {problem}", file=sys.stderr)
    print(f"load average at the end: {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return 1 if measured.errors else 0


if __name__ == "__main__":
    sys.exit(main())
