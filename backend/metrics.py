"""`/metrics`: what the service does, for Prometheus (docs/operations.md lists the names)."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Iterator

from flask import Flask, Response, g, request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from backend import log_context
from backend.engines import Role
from backend.errors import ServiceError
from backend.jobs.types import Job
from backend.model import ModelState
from backend.scheduler import DeviceListener, Priority

if TYPE_CHECKING:
    from backend.service import TrackingService

INTERACTIVE, OPEN, BATCH = "interactive", "open", "batch"
"""Who waits for an answer of `/predict`: a person who asks, one who opens a task, no one."""

_REQUEST_SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 100)
_WAIT_SECONDS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_JOB_SECONDS = (0.1, 1, 5, 15, 60, 300, 1800, 7200, 43200)
_MOST_PROJECTS = 50
"""With labels of their own: a label's values are kept for ever, here and in Prometheus."""
_OTHERS, _NO_PROJECT = "others", "none"


def measure(app: Flask, service: TrackingService) -> None:
    """Count and time every request of the app and the service's work; answer `/metrics`."""
    registry = measure_work(service)
    _measure_requests(app, registry, registry.failures)
    serve_metrics(app, registry)


class Registry(CollectorRegistry):
    """The metrics of one process."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = _Failures(self)


def measure_work(service: TrackingService) -> Registry:
    """Count and time what this process does of the service."""
    registry = Registry()
    projects = _Projects()
    ProcessCollector(registry=registry)
    registry.register(_ServiceState(service, projects))
    if service.role is not Role.WEB:
        service.model.scheduler.listener = _DeviceMetrics(registry, projects)
        service.jobs.on_failed = lambda job, error: registry.failures.count("job", error)
    if service.role is not Role.WORKER:  # web processes hear of all jobs
        service.finished_listeners.append(_JobMetrics(registry, projects).job_ended)
        service.outbox.on_failed = lambda error: registry.failures.count("prediction", error)
    return registry


def serve_metrics(app: Flask, registry: CollectorRegistry) -> None:
    """Answer `/metrics`."""

    def metrics() -> Response:
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    app.add_url_rule("/metrics", "metrics", metrics, methods=["GET"])


class _Projects:
    """Names for labels: the first projects' own, and one for all that come after them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: set[int] = set()

    def label(self, project_id: object) -> str:
        if not isinstance(project_id, int):
            return _NO_PROJECT
        with self._lock:
            if len(self._known) < _MOST_PROJECTS:
                self._known.add(project_id)
            return str(project_id) if project_id in self._known else _OTHERS

    @property
    def known(self) -> list[int]:
        with self._lock:
            return sorted(self._known)


class _Failures:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._count = Counter(
            "sam2_failures", "What failed and why: the errors' short names", ["what", "reason"],
            registry=registry,
        )

    def count(self, what: str, error: Exception) -> None:
        reason = "internal error"
        if isinstance(error, ServiceError):
            reason = str(getattr(error, "failure", error.name))
        elif isinstance(error, ValueError):
            reason = "bad request"
        self.count_named(what, reason)

    def count_named(self, what: str, reason: str) -> None:
        self._count.labels(what, reason).inc()


def _measure_requests(app: Flask, registry: CollectorRegistry, failures: _Failures) -> None:
    count = Counter(
        "sam2_requests", "HTTP requests", ["endpoint", "status"], registry=registry
    )
    seconds = Histogram(
        "sam2_request_seconds", "Time to answer an HTTP request", ["endpoint"],
        buckets=_REQUEST_SECONDS, registry=registry,
    )
    answers = Histogram(
        "sam2_answer_seconds", "Time to answer /predict, by who waits", ["asked"],
        buckets=_REQUEST_SECONDS, registry=registry,
    )

    def end(answer: Response) -> Response:
        # The route's name and not the path, of which there is no end.
        endpoint = request.endpoint or "unknown"
        passed = time.perf_counter() - g.request_began
        count.labels(endpoint, answer.status_code).inc()
        seconds.labels(endpoint).observe(passed)
        if "asked" in g:
            answers.labels(g.asked).observe(passed)
        if "failure" in g:
            failures.count_named("request", g.failure)
        return answer

    app.after_request(end)


class _DeviceMetrics(DeviceListener):
    def __init__(self, registry: CollectorRegistry, projects: _Projects) -> None:
        self._projects = projects
        self._frames = Counter(
            "sam2_frames_tracked", "Frames tracked", ["priority"], registry=registry
        )
        self._busy = Counter(
            "sam2_device_busy_seconds", "Time that the device was held; its rate is the busy share",
            ["priority"], registry=registry,
        )
        self._of_projects = Counter(
            "sam2_project_device_seconds", "The same by project", ["project"], registry=registry
        )
        self._wait = Histogram(
            "sam2_device_wait_seconds", "Time that a frame waited for the device", ["priority"],
            buckets=_WAIT_SECONDS, registry=registry,
        )
        self._out_of_memory = Counter(
            "sam2_device_out_of_memory", "Work given up as the device's memory did not suffice",
            registry=registry,
        )

    def turn_ended(
        self, priority: Priority, waited_seconds: float, held_seconds: float
    ) -> None:
        name = priority.name.lower()
        project = self._projects.label(log_context.current().get("project"))
        self._busy.labels(name).inc(held_seconds)
        self._of_projects.labels(project).inc(held_seconds)
        self._wait.labels(name).observe(waited_seconds)

    def frame_tracked(self, priority: Priority) -> None:
        self._frames.labels(priority.name.lower()).inc()

    def out_of_memory(self) -> None:
        self._out_of_memory.inc()


class _JobMetrics:
    def __init__(self, registry: CollectorRegistry, projects: _Projects) -> None:
        self._projects = projects
        self._ended = Counter(
            "sam2_jobs_ended", "Jobs that ended", ["kind", "state"], registry=registry
        )
        self._of_projects = Counter(
            "sam2_project_jobs_ended", "The same by project", ["project", "state"],
            registry=registry,
        )
        self._wait = Histogram(
            "sam2_job_wait_seconds", "Time from a job's order to its begin", ["kind", "priority"],
            buckets=_WAIT_SECONDS + _JOB_SECONDS[4:], registry=registry,
        )
        self._seconds = Histogram(
            "sam2_job_seconds", "Time from a job's begin to its end", ["kind"],
            buckets=_JOB_SECONDS, registry=registry,
        )

    def job_ended(self, job: Job) -> None:
        kind, state = str(job.kind), str(job.state)
        self._ended.labels(kind, state).inc()
        self._of_projects.labels(self._projects.label(job.project_id), state).inc()
        if job.started_at is None or job.finished_at is None:
            return
        waited = max(0.0, job.started_at - job.created_at)
        self._wait.labels(kind, job.priority.name.lower()).observe(waited)
        self._seconds.labels(kind).observe(max(0.0, job.finished_at - job.started_at))


class _ServiceState(Collector):
    """What is the case at the moment of asking."""

    def __init__(self, service: TrackingService, projects: _Projects) -> None:
        self._service = service
        self._projects = projects

    def describe(self) -> list[GaugeMetricFamily]:
        return []  # nothing is asked of the service when this is registered

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily(
            "sam2_threads", "Threads of the process", value=threading.active_count()
        )
        if self._service.role is not Role.WORKER:  # all processes see the same jobs
            yield from self._work()
        yield from self._model()
        yield from self._storage()

    def _work(self) -> Iterator[GaugeMetricFamily]:
        service = self._service
        yield _gauge(
            "sam2_jobs", "Jobs kept", ["kind", "state"], service.store.counts_by_kind()
        )
        yield _gauge(
            "sam2_project_jobs_queued", "Jobs of a project that wait", ["project"],
            {(str(id_),): service.store.count_queued(id_) for id_ in self._projects.known},
        )
        posts = service.store.post_counts()
        yield _gauge(
            "sam2_predictions", "Predictions to Label Studio", ["state"],
            {(state,): count for state, count in posts.items()},
        )
        sessions = service.sessions
        yield _gauge(
            "sam2_sessions", "Interactive sessions", ["state"],
            {("open",): sessions.open_count, ("propagating",): sessions.propagating_count},
        )

    def _model(self) -> Iterator[GaugeMetricFamily]:
        model = self._service.model
        yield _gauge(
            "sam2_model_state", "1 for the state that the model is in", ["state"],
            {(state,): float(model.state is state) for state in ModelState},
        )
        yield GaugeMetricFamily(
            "sam2_device_queue_length", "Frames that wait for the device",
            value=model.scheduler.waiting_count,
        )
        yield _gauge(
            "sam2_device_memory_bytes", "Memory of the GPU, whoever uses it", ["state"],
            _device_memory(),
        )
        yield GaugeMetricFamily(
            "sam2_open_videos", "Videos kept open for the next prompt", value=model.open_count
        )

    def _storage(self) -> Iterator[GaugeMetricFamily]:
        service = self._service
        media, data = service.settings.media_cache, service.settings.data_folder
        yield _gauge(
            "sam2_cache_bytes", "Bytes kept", ["cache"],
            {("results",): service.store.result_bytes(), ("media",): _folder_bytes(media)},
        )
        yield _gauge(
            "sam2_disk_free_bytes", "Room on the disks", ["folder"],
            {("data",): _free_bytes(data), ("media",): _free_bytes(media)},
        )


def _gauge(
    name: str, description: str, labels: list[str], values: dict[tuple, float]
) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, description, labels=labels)
    for key, value in values.items():
        gauge.add_metric([str(part) for part in key], value)
    return gauge


def _device_memory() -> dict[tuple, float]:
    """Nothing without a GPU, nor before the model has been loaded on it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return {}
    free, total = torch.cuda.mem_get_info()
    return {("used",): total - free, ("free",): free}


def _free_bytes(folder: Path) -> int:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


def _folder_bytes(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(place, name)).st_size
            except FileNotFoundError:  # has just gone
                continue
    return total
