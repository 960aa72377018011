"""Figures kept in results.json, and RESULTS.md written from them. Needs no torch."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

FOLDER = Path(__file__).parent
_RESULTS = FOLDER / "results.json"


def recorded() -> dict:
    """section -> {machine, date, figures}"""
    return json.loads(_RESULTS.read_text()) if _RESULTS.exists() else {}


def record(section: str, figures: object, *, machine: str) -> None:
    """Puts a section's figures in the place of its last ones, in both files."""
    results = recorded()
    today = datetime.date.today().isoformat()
    results[section] = {"machine": machine, "date": today, "figures": figures}
    _RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    (FOLDER / "RESULTS.md").write_text(report(results))


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
        ("embedded", _report_embedded),
        ("bfloat16", _report_bfloat16),
        ("correction", _report_correction),
        ("image", _report_image),
        ("memory", _report_memory),
        ("track", _report_track),
        ("growth", _report_growth),
        ("training", _report_training),
        ("converters", _report_converters),
        ("queue", _report_queue),
        ("answer", _report_answer),
        ("panel", _report_panel),
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


def _report_embedded(figures: list[dict]) -> list[str]:
    lines = [
        "## The embedded model, 1280x720 H.264, decoding included",
        "",
        "| objects | frames a second |",
        "|---|---|",
    ]
    for answer in figures:
        lines.append(
            f"| {answer['objects']} | {answer['frames_per_second']:.1f} ({answer['dtype']}) |"
        )
    return lines


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


def _report_track(figures: list[dict]) -> list[str]:
    lines = [
        "## Memory of `track` (embedded model, 640x360, 2 objects)",
        "",
        "A state has the predictor's budgets (1 GiB of features, 128 MiB of history), for",
        "corrections; a file was tracked so too, and now keeps what the next frame needs.",
        "",
        "| frames | before opening, MiB | peak of a state, MiB | peak of a file, MiB "
        "| less, MiB | masks |",
        "|---|---|---|---|---|---|",
    ]
    for pair in figures:
        state, file = pair["state"], pair["file"]
        same = "the same" if state["masks"] == file["masks"] else "DIFFERENT"
        lines.append(
            f"| {file['frames']} | {file['before']:.0f} | {state['peak']:.0f} "
            f"| {file['peak']:.0f} | {state['peak'] - file['peak']:.0f} | {same} |"
        )
    return lines


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
        "machine. Learning curves: `learning_curve.png`, `learning_curve_matching.png`,",
        "`learning_curve_both.png`.",
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


def _report_converters(figures: dict) -> list[str]:
    return [
        "## Converters",
        "",
        f"By `{figures['command']}`; other work shared the machine.",
        "",
        *figures["lines"],
    ]


def _report_queue(figures: dict) -> list[str]:
    lines = [
        "## The queue: embedded beside Redis",
        "",
        f"By `make bench-queue`; videos of {figures['frames']} frames at 320x240, the embedded model "
        "on the CPU with one",
        "thread a process, over HTTP; each worker is pinned to one of the machine's cores, which the "
        "clients,",
        "the web process and Redis use too. A person's answer is the whole track of a new box on a new",
        f"task. Load average at the end {figures['load'][0]}.",
        "",
        "| jobs that do nothing | submit, ms | order to end in a row, ms a job | a person's round trip, ms |",
        "|---|---|---|---|",
    ]
    for name, item in figures["empty"].items():
        lines.append(
            f"| {name} | {item['submit_ms']:.1f} | {item['job_ms']:.1f} | {item['person_ms']:.1f} |"
        )
    lines += [
        "",
        f"| | frames a second | a person alone, p50 / p95, s | while {figures['waiting']} batch "
        "jobs wait, p50 / p95, s |",
        "|---|---|---|---|",
    ]
    for name, item in figures["engines"].items():
        lines.append(
            f"| {name} | {item['frames_per_second']:.1f} | {item['alone_p50']:.2f} / "
            f"{item['alone_p95']:.2f} | {item['beside_p50']:.2f} / {item['beside_p95']:.2f} |"
        )
    return lines


def _report_answer(figures: dict) -> list[str]:
    after = figures["after"]
    lines = [
        "## A person's request with the queue empty, without the model's work",
        "",
        "`python -m benchmarks.answer` in worktrees of c75e548 and of the commit that builds the",
        "regions once, three times each in turn: a rule in the place of the model,",
        f"{after['frames']} frames of 320x240, medians of {after['requests']} requests and three runs.",
        "",
        "| | seconds to the answer | CPU seconds in all | seconds building regions (all threads) "
        "| builds | SQLite transactions | request named |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in figures.items():
        if found is not None:
            lines.append(
                f"| {name} | {found['seconds']:.2f} | {found['cpu_seconds']:.2f} | "
                f"{found['build_seconds']:.2f} | "
                f"{found['builds']:.0f} | {found['transactions']:.0f} | {found['names']:.0f} times |"
            )
    return [*lines, "", "Load average: " + ", ".join(
        f"{found['load']} ({name})" for name, found in figures.items() if found is not None
    ) + "."]


def _report_panel(figures: dict) -> list[str]:
    width, height = figures["size_wh"]
    frame, playing = figures["frame_ms"], figures["playing"]
    lines = [
        "## Panel",
        "",
        "By `python -m benchmarks.panel`; other work shared the machine.",
        "",
        f"{figures['objects']} objects at {width}x{height}, headless Chromium without a GPU, "
        "milliseconds a frame (medians):",
        "",
        "| masks decoded | painted | drawn with the picture | together | 95 % below "
        "| processor time of the browser, the pictures' decoding included |",
        "|---|---|---|---|---|---|",
        f"| {frame['decode']:.1f} | {frame['paint']:.1f} | {frame['draw']:.1f} "
        f"| {frame['whole']:.1f} | {frame['whole_p95']:.1f} | {frame['cpu']:.1f} |",
        "",
        f"Playing a video of 25 frames a second: {playing['first_fps']:.1f} a second while its "
        f"frames are fetched, {playing['again_fps']:.1f} when they are there "
        f"({max(0, playing['again_left_out'])} left out).",
        "",
        "| click to mask over /api/sessions, embedded model | first on a frame, s | later, s "
        "| slowest later, s |",
        "|---|---|---|---|",
    ]
    for line in figures["clicks"]:
        size = "x".join(map(str, line["size_wh"]))
        lines.append(
            f"| {size} | {line['first']:.2f} | {line['later']:.2f} | {line['later_worst']:.2f} |"
        )
    return lines
