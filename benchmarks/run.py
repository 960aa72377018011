"""Measure everything and write RESULTS.md: `make bench`.

Sections: speed, bfloat16, correction, image, memory, growth. Give names to run only
those; the others keep their last figures from results.json.
"""

from __future__ import annotations

import argparse
import datetime
import json
from pathlib import Path

from benchmarks import harness, sections

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
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


def correction() -> dict:
    return harness.isolated(sections.correction_again, 6)


def image() -> dict:
    return harness.isolated(sections.second_click)


def memory() -> dict:
    return {
        str(count): harness.isolated(sections.peak_memory, count, 2)
        for count in (100, 2000)
    }


def growth() -> dict:
    return {
        axis: [harness.isolated(sections.growth, axis, value) for value in values]
        for axis, values in GROWTH.items()
    }


def bfloat16() -> dict:
    return harness.isolated(sections.bfloat16_agreement, 20)


SECTIONS = {
    "speed": speed,
    "bfloat16": bfloat16,
    "correction": correction,
    "image": image,
    "memory": memory,
    "growth": growth,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", default=list(SECTIONS), choices=[*SECTIONS, []])
    chosen = parser.parse_args().sections or list(SECTIONS)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in chosen:
        print(f"{name} ...", flush=True)
        results[name] = {
            "machine": harness.machine(),
            "date": datetime.date.today().isoformat(),
            "figures": SECTIONS[name](),
        }
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    (FOLDER / "RESULTS.md").write_text(report(results))
    if "growth" in results:
        plot_growth(results["growth"]["figures"], FOLDER / "growth.png")


def report(results: dict) -> str:
    """RESULTS.md from the figures."""
    lines = [
        "# Measured",
        "",
        "Written by `make bench` (`python -m benchmarks.run [section ...]`); ratios are taken",
        "side by side in one run, with the same weights, frames and prompts. SAM 2.1 tiny,",
        "1024 px, 1280x720 frames, unless a line says otherwise.",
    ]
    for name, write in (
        ("speed", _report_speed),
        ("bfloat16", _report_bfloat16),
        ("correction", _report_correction),
        ("image", _report_image),
        ("memory", _report_memory),
        ("growth", _report_growth),
        ("training", _report_training),
    ):
        if name in results:
            section = results[name]
            lines += ["", *write(section["figures"]), ""]
            lines.append(f"({section['date']}; {section['machine']})")
    return "\n".join(lines) + "\n"


def _report_speed(figures: dict) -> list[str]:
    lines = [
        "## Video, seconds a frame once the memory bank is full",
        "",
        "| objects | Meta's `sam2` 1.1.0, float32 | ours, float32 | ours, default |",
        "|---|---|---|---|",
    ]
    for objects in (1, 8):
        theirs = figures[f"reference {objects}"]["seconds"]
        cells = []
        for which in ("ours_float32", "ours"):
            answer = figures[f"{which} {objects}"]
            dtype = answer["dtype"].removeprefix("torch.")
            cells.append(f"{answer['seconds']:.2f} ({theirs / answer['seconds']:.2f}x, {dtype})")
        lines.append(f"| {objects} | {theirs:.2f} | {cells[0]} | {cells[1]} |")
    parts = ", ".join(f"{name} {value:.2f}" for name, value in figures["parts"].items())
    return [*lines, "", f"Where ours goes, one object, float32, seconds: {parts}."]


def _report_bfloat16(figures: dict) -> list[str]:
    return [
        "## bfloat16 beside float32, the embedded model",
        "",
        f"IoU of the masks: mean {figures['mean']:.4f}, least {figures['least']:.4f}, over "
        f"{figures['masks']} masks.",
    ]


def _report_correction(figures: dict) -> list[str]:
    lines = [
        "## A correction click, then propagation again",
        "",
        "| encoder features | first pass, s | second pass, s | ratio |",
        "|---|---|---|---|",
    ]
    for label, times in figures.items():
        ratio = times["first"] / times["second"]
        lines.append(f"| {label} | {times['first']:.1f} | {times['second']:.1f} | {ratio:.2f} |")
    return lines


def _report_image(figures: dict) -> list[str]:
    share = figures["second"] / figures["first"]
    return [
        "## Image prediction",
        "",
        f"First click (encoding included) {figures['first']:.2f} s, second click "
        f"{figures['second'] * 1000:.0f} ms: {share:.1%} of the first.",
    ]


def _report_memory(figures: dict) -> list[str]:
    lines = [
        "## Peak memory over a video's length (embedded model, 640x360, 2 objects)",
        "",
        "Cache budgets small enough (16 MiB of features, 2 MiB of history) that both videos",
        "fill them.",
        "",
        "| frames | before opening, MiB | peak, MiB |",
        "|---|---|---|",
    ]
    for answer in figures.values():
        lines.append(f"| {answer['frames']} | {answer['before']:.0f} | {answer['peak']:.0f} |")
    peaks = [answer["peak"] for answer in figures.values()]
    return [*lines, "", f"Difference: {peaks[-1] - peaks[0]:.0f} MiB."]


def _report_growth(figures: dict) -> list[str]:
    lines = [
        "## How the cost grows, seconds a frame",
        "",
        "Objects at 512 px, frame number at 256 px, the rest at 1024 px. Plot: `growth.png`.",
        "",
        "| what grows | |",
        "|---|---|",
    ]
    for axis, answers in figures.items():
        cells = ", ".join(f"{a['value']}: {a['seconds']:.2f}" for a in answers)
        lines.append(f"| {axis} | {cells} |")
    return lines


def _report_training(figures: list[dict]) -> list[str]:
    lines = [
        "## Training the embedded model",
        "",
        "By `python -m benchmarks.training RUN`, from the run's logs; other work shared the",
        "machine. Learning curve: `learning_curve.png`.",
        "",
        "| stage | image size | steps | frames a step | seconds a step | frames a second | hours |",
        "|---|---|---|---|---|---|---|",
    ]
    for stage in figures:
        lines.append(
            f"| {stage['stage']} | {stage['image_size']} | {stage['steps']} "
            f"| {stage['frames_a_step']} | {stage['seconds_a_step']:.2f} "
            f"| {stage['frames_a_second']:.1f} | {stage['hours']:.2f} |"
        )
    return lines


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
