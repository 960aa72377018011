"""The panel in a browser and the sessions behind it: `python -m benchmarks.panel`.

Ten objects' masks at 1080p: how long a frame's decoding and drawing takes in headless
Chromium without a GPU, and how many frames are shown while playing. Then how long a click
takes to its mask over /api/sessions, with the embedded model. Needs the e2e extra and a
chromium (or its path in CHROMIUM).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from backend.processes import running_backend
from benchmarks import harness
from benchmarks.report import record
from converters.label_studio.config import parse_label_config
from converters.label_studio.regions import track_to_video_region
from converters.masks import encode_mask
from converters.types import Track
from sam2_model.video import open_frame_source

SIZE_WH = (1920, 1080)
CLICK_SIZES_WH = ((1280, 720), (1920, 1080))
OBJECTS = 10
FRAMES = 60
CLICKS = 8
FPS = 25
CONFIG = """<View><Labels name="labels" toName="video"><Label value="Thing"/></Labels>
<Video name="video" value="$video" framerate="25"/>
<VideoRectangle name="box" toName="video"/></View>"""
_OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]

_DRAW = """async ({session, frames, objects}) => {
    const [{Masks}, {MaskOverlay}] = await Promise.all(
        ['masks', 'overlay'].map(name => import(`/panel/${name}.js`)));
    const {width, height} = session.video;
    const stage = new OffscreenCanvas(1280, 720);
    const context = stage.getContext('2d', {alpha: false});
    const overlay = new MaskOverlay(width, height);
    const times = {decode: [], paint: [], draw: []};
    for (const [frame, known] of frames.entries()) {
        const masks = new Masks(width * height); // nothing decoded before
        const picture = await createImageBitmap(
            await (await fetch(`/api/sessions/${session.id}/frames/${frame}.jpg`)).blob());
        const begun = performance.now();
        const layers = Object.values(known.objects).map(({mask}, number) => ({
            intervals: masks.intervals(mask.counts), colour: [25 * number, 120, 200],
            isSelected: number === objects - 1,
        }));
        const decoded = performance.now();
        overlay.paint(layers, 2);
        const painted = performance.now();
        context.setTransform(stage.width / width, 0, 0, stage.height / height, 0, 0);
        context.drawImage(picture, 0, 0);
        overlay.draw(context);
        context.getImageData(0, 0, 1, 1); // or nothing is drawn yet
        times.decode.push(decoded - begun);
        times.paint.push(painted - decoded);
        times.draw.push(performance.now() - painted);
    }
    return times;
}"""
_WATCH = """() => {
    const canvas = document.getElementById('canvas');
    window.seen = [];
    new MutationObserver(() => {
        if (window.seen.at(-1)?.frame !== canvas.dataset.frame) {
            window.seen.push({frame: canvas.dataset.frame, at: performance.now()});
        }
    }).observe(canvas, {attributes: true, attributeFilter: ['data-frame']});
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "media").mkdir()
        variables = {
            "SAM2_MEDIA_ROOTS": str(folder / "media"), "SAM2_DATA_FOLDER": str(folder / "data"),
        }
        with running_backend(log=folder / "service.log", variables=variables) as url:
            figures = {"clicks": clicks(url, folder / "media")}
            figures |= in_browser(url, folder / "media")
    print(json.dumps(figures, indent=1))
    record("panel", figures, machine=harness.machine())


# --- the browser -------------------------------------------------------------


def in_browser(url: str, media: Path) -> dict[str, Any]:
    video = harness.write_video(media / "large.mp4", FRAMES, SIZE_WH)
    session = ask(url, "POST", "/api/sessions", {
        "data": {"video": str(video)}, "label_config": CONFIG, "results": regions(video),
    })
    path = f"/api/sessions/{session['id']}/frames"
    frames = [ask(url, "GET", f"{path}/{index}/masks") for index in range(FRAMES)]
    with sync_playwright() as playwright:
        program = shutil.which(os.environ.get("CHROMIUM", "chromium"))
        browser = playwright.chromium.launch(executable_path=program, args=_OPTIONS)
        page = browser.new_page(viewport={"width": 1600, "height": 860})
        page.set_default_timeout(300_000)
        page.goto(f"{url}/panel?session={session['id']}")
        page.wait_for_selector(f".object:nth-child({OBJECTS})")
        given = {"session": session, "frames": frames, "objects": OBJECTS}
        before = cpu_seconds()
        times = page.evaluate(_DRAW, given)
        cpu_ms = 1000 * (cpu_seconds() - before) / FRAMES
        played = play(page)
        browser.close()
    whole = [sum(parts) for parts in zip(*times.values())]
    return {
        "objects": OBJECTS,
        "size_wh": SIZE_WH,
        "frame_ms": {
            **{name: statistics.median(values) for name, values in times.items()},
            "whole": statistics.median(whole),
            "whole_p95": float(np.percentile(whole, 95)),
            "cpu": cpu_ms,
        },
        "playing": played,
    }


def cpu_seconds() -> float:
    """What the programs that this one has started have used, the browser's among them: unlike
    wall time it hardly depends on what else runs. The service's is left out."""
    parents, used = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, fields = stat.read_text().rsplit(")", 1)
        except OSError:
            continue  # it has ended
        values = fields.split()
        number = int(stat.parent.name)
        parents[number] = int(values[1])
        ticks = int(values[11]) + int(values[12])
        used[number] = 0 if "gunicorn" in name or "python" in name else ticks

    def is_ours(number: int) -> bool:
        while number in parents and number != os.getpid():
            number = parents[number]
        return number == os.getpid()

    return sum(used[n] for n in used if n != os.getpid() and is_ours(n)) / os.sysconf("SC_CLK_TCK")


def regions(video: Path) -> list[dict[str, Any]]:
    """Ten discs that wander, each a tenth to a fifth of the frame's height across."""
    width, height = SIZE_WH
    (control,) = parse_label_config(CONFIG).video_rectangles
    with open_frame_source(video) as source:
        info = source.info
    found = []
    for number in range(OBJECTS):
        shape = blob(round(height * (0.1 + 0.01 * number)))
        masks = {}
        for t in range(FRAMES):
            left = round((width - len(shape)) * (0.5 + 0.45 * np.sin(t / 20 + number)))
            top = round((height - len(shape)) * (0.5 + 0.45 * np.cos(t / 25 + 2 * number)))
            mask = np.zeros((height, width), bool)
            mask[top : top + len(shape), left : left + len(shape)] = shape
            masks[t] = encode_mask(mask)
        track = Track(f"object{number}", ("Thing",), masks, dict.fromkeys(masks, 5.0))
        region = track_to_video_region(
            track, control=control, info=info, framerate=FPS, keyframes="all"
        )
        assert region is not None
        found.append(region)
    return found


def blob(radius: int) -> np.ndarray:
    """(2 radius, 2 radius) bool: a disc with a rim like a model's, not a smooth one."""
    rows, columns = np.mgrid[-radius:radius, -radius:radius]
    rim = radius * (0.94 + 0.06 * np.sin(np.arctan2(rows, columns) * 23))
    return rows**2 + columns**2 < rim**2


def play(page: Page) -> dict[str, float]:
    """All frames twice: the first time they are fetched, then they are there."""
    answer = {}
    for name in ("first", "again"):
        page.focus("#canvas")
        page.keyboard.press("Home")
        page.wait_for_function("() => canvas.dataset.frame === '0'")
        page.evaluate(_WATCH)
        page.keyboard.press("Space")
        page.wait_for_function(f"() => canvas.dataset.frame === '{FRAMES - 1}'")
        seen = page.evaluate("() => window.seen")
        seconds = (seen[-1]["at"] - seen[0]["at"]) / 1000
        answer[f"{name}_fps"] = (int(seen[-1]["frame"]) - int(seen[0]["frame"])) / seconds
        answer[f"{name}_left_out"] = FRAMES - 1 - len(seen)
    return answer


# --- clicks ------------------------------------------------------------------


def clicks(url: str, media: Path) -> list[dict[str, Any]]:
    """Seconds from a click to its mask over HTTP, the first on its frame and later ones."""
    lines = []
    for width, height in CLICK_SIZES_WH:
        video = harness.write_video(media / f"clicks{height}.mp4", 4, (width, height))
        session = ask(url, "POST", "/api/sessions", {"video": str(video)})
        first, later = [], []
        for frame in range(3):
            points = []
            for number in range(CLICKS):
                points.append({
                    "x": width * (0.5 + 0.02 * number), "y": height * 0.3, "positive": number < 4,
                })
                path = f"/api/sessions/{session['id']}/objects/a/prompts/{frame}"
                started = time.perf_counter()
                ask(url, "PUT", path, {"points": points})
                (later if number else first).append(time.perf_counter() - started)
        lines.append({
            "size_wh": [width, height], "first": statistics.median(first),
            "later": statistics.median(later), "later_worst": max(later),
        })
    return lines


def ask(url: str, method: str, path: str, body: object = None) -> Any:
    request = urllib.request.Request(
        url + path, method=method, data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


if __name__ == "__main__":
    main()
