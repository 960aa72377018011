"""`/metrics`: what the service does, for Prometheus (docs/api.md lists the names)."""

from __future__ import annotations

import os
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

from backend.jobs.types import Job
from backend.model import ModelState
from backend.scheduler import DeviceListener, Priority

if TYPE_CHECKING:
    from backend.service import TrackingService

_REQUEST_SECONDS = (0.005, 0.02, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 100)
_WAIT_SECONDS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_JOB_SECONDS = (0.1, 1, 5, 15, 60, 300, 1800, 7200, 43200)


def measure(app: Flask, service: TrackingService) -> None:
    """Count and time every request of the app and the service's work; answer `/metrics`."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_ServiceState(service))
    _measure_requests(app, registry)
    service.model.scheduler.listener = _DeviceMetrics(registry)
    service.finished_listeners.append(_JobMetrics(registry).job_ended)

    def metrics() -> Response:
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    app.add_url_rule("/metrics", "metrics", metrics, methods=["GET"])


def _measure_requests(app: Flask, registry: CollectorRegistry) -> None:
    count = Counter(
        "sam2_requests", "HTTP requests", ["endpoint", "status"], registry=registry
    )
    seconds = Histogram(
        "sam2_request_seconds", "Time to answer an HTTP request", ["endpoint"],
        buckets=_REQUEST_SECONDS, registry=registry,
    )

    def begin() -> None:
        g.request_began = time.perf_counter()

    def end(answer: Response) -> Response:
        # The route's name and not the path, of which there is no end.
        endpoint = request.endpoint or "unknown"
        count.labels(endpoint, answer.status_code).inc()
        seconds.labels(endpoint).observe(time.perf_counter() - g.request_began)
        return answer

    app.before_request(begin)
    app.after_request(end)


class _DeviceMetrics(DeviceListener):
    def __init__(self, registry: CollectorRegistry) -> None:
        self._frames = Counter(
            "sam2_frames_tracked", "Frames tracked", ["priority"], registry=registry
        )
        self._busy = Counter(
            "sam2_device_busy_seconds", "Time that the device was held; its rate is the busy share",
            ["priority"], registry=registry,
        )
        self._wait = Histogram(
            "sam2_device_wait_seconds", "Time that a frame waited for the device", ["priority"],
            buckets=_WAIT_SECONDS, registry=registry,
        )

    def turn_ended(
        self, priority: Priority, waited_seconds: float, held_seconds: float
    ) -> None:
        name = priority.name.lower()
        self._busy.labels(name).inc(held_seconds)
        self._wait.labels(name).observe(waited_seconds)

    def frame_tracked(self, priority: Priority) -> None:
        self._frames.labels(priority.name.lower()).inc()


class _JobMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._ended = Counter(
            "sam2_jobs_ended", "Jobs that ended", ["kind", "state"], registry=registry
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
        kind = str(job.kind)
        self._ended.labels(kind, str(job.state)).inc()
        if job.started_at is None or job.finished_at is None:
            return
        waited = max(0.0, job.started_at - job.created_at)
        self._wait.labels(kind, job.priority.name.lower()).observe(waited)
        self._seconds.labels(kind).observe(max(0.0, job.finished_at - job.started_at))


class _ServiceState(Collector):
    """What is the case at the moment of asking."""

    def __init__(self, service: TrackingService) -> None:
        self._service = service

    def describe(self) -> list[GaugeMetricFamily]:
        return []  # nothing is asked of the service when this is registered

    def collect(self) -> Iterator[GaugeMetricFamily]:
        service = self._service
        jobs = GaugeMetricFamily("sam2_jobs", "Jobs kept", labels=["kind", "state"])
        for (kind, state), count in service.store.counts_by_kind().items():
            jobs.add_metric([str(kind), str(state)], count)
        yield jobs
        posts = GaugeMetricFamily(
            "sam2_predictions", "Predictions to Label Studio", labels=["state"]
        )
        for state, count in service.store.post_counts().items():
            posts.add_metric([str(state)], count)
        yield posts
        model = GaugeMetricFamily(
            "sam2_model_state", "1 for the state that the model is in", labels=["state"]
        )
        for state in ModelState:
            model.add_metric([str(state)], float(service.model.state is state))
        yield model
        yield GaugeMetricFamily(
            "sam2_device_queue_length", "Frames that wait for the device",
            value=service.model.scheduler.waiting_count,
        )
        yield GaugeMetricFamily(
            "sam2_open_videos", "Videos kept open for the next prompt",
            value=service.model.open_count,
        )
        cache = GaugeMetricFamily("sam2_cache_bytes", "Bytes on disk", labels=["cache"])
        cache.add_metric(["results"], service.store.result_bytes())
        cache.add_metric(["media"], _folder_bytes(service.settings.media_cache))
        yield cache


def _folder_bytes(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(place, name)).st_size
            except FileNotFoundError:  # has just gone
                continue
    return total
