"""Measure everything and write RESULTS.md: `make bench`.

Sections: speed, embedded, bfloat16, correction, image, memory, track, growth. Give names to run
only those; the others keep their last figures from results.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import harness, sections
from benchmarks.report import FOLDER, record, recorded

GROWTH = {
    "objects": (1, 2, 4),
    "memories": (1, 4, 7),
    "image size": (256, 512, 1024),
    "frame number": (10, 50, 150),
}


def speed() -> dict:
    """Ours beside the reference, one and eight objects."""
    table = {}
    for objects, skip, count in ((1, 8, 3), (8, 7, 1)):
        for which in ("reference", "ours_float32", "ours"):
            if which == "ours" and table[f"ours_float32 {objects}"]["dtype"] == str(
                sections.default_dtype(sections.torch.device("cpu"))
            ):
                table[f"ours {objects}"] = table[f"ours_float32 {objects}"]
                continue
            answer = harness.isolated(sections.steady_state, which, objects, skip, count)
            table[f"{which} {objects}"] = answer
            print(answer, flush=True)
    table["parts"] = harness.isolated(sections.parts_of_a_frame)
    return table


def embedded() -> list[dict]:
    return [
        harness.isolated(sections.embedded_speed, objects, 10, 40) for objects in (1, 2, 4, 8)
    ]


def correction() -> dict:
    return harness.isolated(sections.correction_again, 6)


def image() -> dict:
    return harness.isolated(sections.second_click)


def memory() -> dict:
    return {
        str(count): harness.isolated(sections.peak_memory, count, 2)
        for count in (100, 2000)
    }


def track() -> list[dict]:
    """A file beside a state with the predictor's budgets."""
    return [
        {
            what: harness.isolated(sections.track_memory, count, what)
            for what in ("state", "file")
        }
        for count in (100, 1000)
    ]


def growth() -> dict:
    return {
        axis: [harness.isolated(sections.growth, axis, value) for value in values]
        for axis, values in GROWTH.items()
    }


def bfloat16() -> dict:
    return harness.isolated(sections.bfloat16_agreement, 20)


SECTIONS = {
    "speed": speed,
    "embedded": embedded,
    "bfloat16": bfloat16,
    "correction": correction,
    "image": image,
    "memory": memory,
    "track": track,
    "growth": growth,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", default=list(SECTIONS), choices=[*SECTIONS, []])
    chosen = parser.parse_args().sections or list(SECTIONS)
    for name in chosen:
        print(f"{name} ...", flush=True)
        record(name, SECTIONS[name](), machine=harness.machine())
    if "growth" in chosen:
        plot_growth(recorded()["growth"]["figures"], FOLDER / "growth.png")


def plot_growth(figures: dict, path: Path) -> None:
    """One panel for each thing that grows."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(figures), figsize=(4 * len(figures), 3.2))
    for panel, (axis, answers) in zip(panels, figures.items()):
        panel.plot([a["value"] for a in answers], [a["seconds"] for a in answers], marker="o")
        panel.set(xlabel=axis, ylabel="seconds a frame", ylim=(0, None))
        panel.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
