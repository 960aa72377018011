"""How a training run went: `python -m benchmarks.training RUN`.

RUN is the folder that `python -m sam2_model.training.demo --out RUN` filled.
Writes the learning curve as `learning_curve.png` (or `--picture`) and the stages'
throughput into RESULTS.md beside those of other runs, from the logs alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from benchmarks import harness
from benchmarks.report import FOLDER, record, recorded
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
        log, kinds = read_log(log_path), stage.in_turn
        seconds = statistics.mean(
            statistics.median(e["seconds"] for e in log if (e["step"] - 1) % len(kinds) == turn)
            for turn in range(len(kinds))
        )
        frames = statistics.mean(kind.clip_count * kind.frame_count for kind in kinds)
        lines.append(
            {
                "stage": stage.name,
                "steps": len(log),
                "image_size": stage.batches.image_size,
                "frames_a_step": frames,
                "objects_a_clip": stage.batches.objects_per_clip,
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
    parser.add_argument("--picture", default="learning_curve.png", help="default %(default)s")
    options = parser.parse_args()
    lines = {line["stage"]: line for line in recorded().get("training", {}).get("figures", ())}
    lines |= {line["stage"]: line for line in throughput(options.run)}
    in_order = [lines[stage.name] for stage in STAGES if stage.name in lines]
    record("training", in_order, machine=harness.machine())
    plot(options.run, FOLDER / options.picture)


if __name__ == "__main__":
    main()
