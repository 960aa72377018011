"""How a training run went: `python -m benchmarks.training RUN`.

RUN is the folder that `python -m sam2_model.training.demo --out RUN` filled.
Writes the learning curve as `learning_curve.png` and the stages' throughput
into RESULTS.md, from the logs alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from benchmarks import harness
from benchmarks.report import FOLDER, record
from sam2_model.training.demo import STAGES

_WINDOW = 50
"""Steps that a point of the curve is the mean of."""


def read_log(path: Path) -> list[dict]:
    """A stage's steps; of a step that was run again after a stop, the last."""
    steps = {}
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        steps[entry["step"]] = entry
    return [steps[step] for step in sorted(steps)]


def throughput(run: Path) -> list[dict]:
    """One line a stage that was begun."""
    lines = []
    for stage in STAGES:
        log_path = run / stage.name / "log.jsonl"
        if not log_path.exists():
            continue
        log, batches = read_log(log_path), stage.batches
        seconds = statistics.median(entry["seconds"] for entry in log)
        frames = batches.clip_count * batches.frame_count
        lines.append(
            {
                "stage": stage.name,
                "steps": len(log),
                "image_size": batches.image_size,
                "frames_a_step": frames,
                "objects_a_clip": batches.objects_per_clip,
                "seconds_a_step": seconds,
                "frames_a_second": frames / seconds,
                "hours": sum(entry["seconds"] for entry in log) / 3600,
                "waited_share": sum(e["waited"] for e in log) / sum(e["seconds"] for e in log),
            }
        )
    return lines


def plot(run: Path, target: Path) -> None:
    """Loss and J over all stages, one after another."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (above, below) = plt.subplots(2, 1, figsize=(9, 6), sharex=True)
    offset = 0
    for stage in STAGES:
        log_path = run / stage.name / "log.jsonl"
        if not log_path.exists():
            continue
        log = read_log(log_path)
        for axis, key, colour in (
            (above, "loss", "#0072B2"),
            (below, "prompt_iou", "#D55E00"),
            (below, "track_iou", "#009E73"),
        ):
            points = [(offset + e["step"], e[key]) for e in log if e[key] is not None]
            if points:
                axis.plot(*_smoothed(points), color=colour)
        for axis in (above, below):
            axis.axvline(offset, color="0.8", zorder=0)
        above.text(offset + 5, 0.97, stage.name, transform=above.get_xaxis_transform(), va="top")
        offset += len(log)
    above.set(ylabel="loss", ylim=(0, None))
    below.set(ylabel="J on training clips", xlabel="step", ylim=(0, 1))
    below.plot([], [], color="#D55E00", label="prompted frame")
    below.plot([], [], color="#009E73", label="tracked frames")
    below.legend(loc="upper left")
    figure.tight_layout()
    figure.savefig(target, dpi=80)


def _smoothed(points: list[tuple[int, float]]) -> tuple[list[int], list[float]]:
    steps, values = [], []
    for index in range(len(points)):
        window = points[max(0, index + 1 - _WINDOW) : index + 1]
        steps.append(points[index][0])
        values.append(sum(value for _, value in window) / len(window))
    return steps, values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    record("training", throughput(run), machine=harness.machine())
    plot(run, FOLDER / "learning_curve.png")


if __name__ == "__main__":
    main()
