"""The panel stand-alone: a video file, a browser and the service, without Label Studio."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from backend.processes import free_port, running_backend
from converters.masks import decode_mask, encode_mask
from converters.types import MaskRLE
from tests.backend.panel.test_rle import check_round_trips
from tests.e2e.panel import Panel
from tests.video_files import write_video

SIZE = WIDTH, HEIGHT = 320, 240
FRAME_COUNT = 10
LONG_FRAME_COUNT = 150
"""So many that a service can be stopped while it tracks them."""
RADIUS = 34
FULL_PAGE = {"width": 1280, "height": 800}
IN_LABEL_STUDIO = {"width": 900, "height": 480}
_FOCUSED = "() => document.activeElement.id || document.activeElement.className"


def orange(index: int) -> tuple[int, int]:
    """Where its centre is."""
    return 80 + 6 * index, 80 + 3 * index


def blue(index: int) -> tuple[int, int]:
    return 240 - 5 * index, 170


def disc(centre: tuple[int, int], radius: float = RADIUS) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2 < radius**2


def scene(index: int) -> np.ndarray:
    """Two discs on a dark, grainy ground."""
    picture = np.random.default_rng(index).integers(0, 40, (HEIGHT, WIDTH, 3))
    picture[disc(orange(index))] += np.array([190, 110, 20])
    picture[disc(blue(index))] += np.array([20, 120, 200])
    return picture.astype(np.uint8)


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    return (found & truth).sum() / (found | truth).sum()


class Service:
    """`sam2-label-studio serve` that can be ended and started again, on the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._running = contextlib.ExitStack()
        media = folder / "media"
        media.mkdir()
        self.video = write_video(
            media / "discs.mp4", FRAME_COUNT, size=SIZE,
            pictures=[scene(index) for index in range(FRAME_COUNT)],
        )
        self.long_video = write_video(
            media / "long.mp4", LONG_FRAME_COUNT, size=SIZE,
            pictures=[scene(index % FRAME_COUNT) for index in range(LONG_FRAME_COUNT)],
        )

    def start(self) -> None:
        self.url = self._running.enter_context(
            running_backend(
                log=self._folder / "panel-service.log", port=self._port,
                variables={
                    "SAM2_MEDIA_ROOTS": str(self._folder / "media"),
                    "SAM2_DATA_FOLDER": str(self._folder / "data"),
                },
            )
        )

    def stop(self) -> None:
        self._running.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("panel"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def panel(browser, service, pictures, request) -> Iterator[Panel]:
    """A new session on the video, in a browser that knows of no other."""
    context = browser.new_context(viewport=FULL_PAGE)
    opened = Panel(context.new_page(), pictures)
    opened.open(f"{service.url}/panel?file={service.video}", new_session=True)
    yield opened
    opened.picture(f"end-{request.node.name}")
    context.close()
    assert opened.problems == []


def known_masks(panel: Panel, frame: int) -> dict[str, np.ndarray]:
    """(H, W) bool by object id, as the service has them. Frames count from 1."""
    with urllib.request.urlopen(f"{panel.session_url}/frames/{frame - 1}/masks") as answer:
        objects = json.load(answer)["objects"]
    nothing = np.zeros((HEIGHT, WIDTH), bool)
    return {
        key: nothing if one["mask"] is None
        else decode_mask(MaskRLE(*one["mask"]["size"], one["mask"]["counts"]))
        for key, one in objects.items()
    }


def test_from_the_first_click_to_a_correction_that_outlives_a_restart(panel, service):
    panel.click(*orange(0))
    shown = panel.masked(SIZE)
    assert iou(shown, disc(orange(0))) > 0.75
    panel.picture("clicked")

    x, y = orange(0)
    panel.click(x + RADIUS - 8, y, alt=True)
    assert panel.masked(SIZE).sum() < shown.sum()
    panel.press("Control+z")
    assert iou(panel.masked(SIZE), shown) > 0.95

    panel.press("n")
    x, y = blue(0)
    panel.drag((x - RADIUS - 3, y - RADIUS - 3), (x + RADIUS + 3, y + RADIUS + 3))
    assert panel.object_count == 2
    assert iou(panel.masked(SIZE), disc(orange(0)) | disc(blue(0))) > 0.75

    panel.press("t")
    panel.wait_for_tracking()
    assert panel.frame == FRAME_COUNT  # the picture has followed
    before = [known_masks(panel, frame) for frame in range(1, FRAME_COUNT + 1)]
    assert all(set(masks) == {"1", "2"} for masks in before)
    assert iou(panel.masked(SIZE), before[-1]["1"] | before[-1]["2"]) > 0.85
    panel.picture("tracked")

    middle = 5
    panel.press("1")
    panel.go_to(middle)
    x, y = orange(middle - 1)
    panel.click(x, y + RADIUS - 8, button="right")
    corrected = known_masks(panel, middle)
    assert (corrected["1"] != before[middle - 1]["1"]).any()
    panel.press("t")
    panel.wait_for_tracking()
    after = [known_masks(panel, frame) for frame in range(1, FRAME_COUNT + 1)]
    for frame in range(1, middle):
        assert (after[frame - 1]["1"] == before[frame - 1]["1"]).all(), frame
    assert (after[middle - 1]["1"] == corrected["1"]).all()
    panel.picture("corrected")

    panel.go_to(middle)
    shown = panel.masked(SIZE)
    panel.page.reload()
    panel.wait_until_open()
    assert panel.frame == middle and panel.object_count == 2
    assert (panel.masked(SIZE) == shown).mean() > 0.999

    service.stop()
    panel.page.wait_for_selector("[data-name=connection]")
    panel.picture("away")
    service.start()
    panel.page.wait_for_selector("[data-name=connection]", state="detached")
    panel.problems.clear()  # what the browser says of requests without an answer
    assert (panel.masked(SIZE) == shown).mean() > 0.999
    panel.press("n")
    panel.click(160, 220)
    assert panel.object_count == 3


def test_what_a_stop_of_the_service_interrupts_goes_on_when_asked(panel, service):
    panel.open(f"{service.url}/panel?file={service.long_video}", new_session=True)
    panel.click(*orange(0))
    panel.masked(SIZE)
    panel.press("t")
    panel.page.wait_for_function("() => document.getElementById('progress').value > 3")
    service.stop()
    panel.page.wait_for_selector("[data-name=connection]")
    service.start()
    panel.page.get_by_text("Tracking was interrupted.").wait_for()
    panel.picture("interrupted")
    panel.problems.clear()  # what the browser says of requests without an answer
    panel.page.get_by_role("button", name="Go on").click()
    panel.page.wait_for_selector("[data-name=interrupted]", state="detached")
    panel.wait_for_tracking()
    assert known_masks(panel, LONG_FRAME_COUNT)


def test_painting_and_erasing_make_the_mask(panel):
    panel.press("b")
    panel.drag((60, 60), (120, 60))
    (painted,) = known_masks(panel, 1).values()
    assert painted[60, 60:121].all() and painted.sum() < 0.1 * painted.size
    assert iou(panel.masked(SIZE), painted) > 0.8
    panel.press("e")
    panel.drag((90, 40), (90, 80))
    (erased,) = known_masks(panel, 1).values()
    assert not erased[60, 90] and erased[60, 62] and (erased <= painted).all()
    panel.press("Control+z")
    (again,) = known_masks(panel, 1).values()
    assert (again == painted).all()
    panel.press("Control+Shift+z")
    assert iou(panel.masked(SIZE), erased) > 0.8


def test_everything_can_be_done_with_the_keyboard(panel):
    page = panel.page
    page.keyboard.press("?")
    page.wait_for_selector("#help[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#help:not([open])", state="attached")
    panel.press("c")
    scale = page.evaluate("() => Math.min(canvas.clientWidth / 320, canvas.clientHeight / 240)")
    x, y = blue(0)
    for key, distance in (("ArrowRight", x - 160), ("ArrowDown", y - 120)):
        for _ in range(round(distance * scale / 8)):
            page.keyboard.press(key)
    panel.press("Enter")
    assert iou(panel.masked(SIZE), disc(blue(0))) > 0.75
    panel.press("c")
    panel.press("ArrowRight", "ArrowRight", "ArrowLeft")
    assert panel.frame == 2
    panel.press("[")
    assert panel.frame == 1
    panel.press("l")
    page.keyboard.type("Ball")
    panel.press("Enter")
    assert page.locator(".object input[type=text]").input_value() == "Ball"
    panel.press("h")
    assert not panel.masked(SIZE).any()
    panel.press("h", "Delete")
    assert known_masks(panel, 1) == {}
    panel.press("Control+z", "Shift+Delete")
    assert panel.object_count == 0
    panel.press("Control+z")
    assert panel.object_count == 1 and iou(panel.masked(SIZE), disc(blue(0))) > 0.75
    # Every control has a name, and the Tab key comes to those that are on.
    missing = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, canvas, [role=slider]')]
            .filter(one => one.checkVisibility() && !one.closest('[aria-hidden=true]'))
            .filter(one => !(one.getAttribute('aria-label') || one.labels?.length
                || one.textContent.trim()))
            .map(one => one.outerHTML)"""
    )
    assert missing == []
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(_FOCUSED))
    assert {"canvas", "timeline", "play", "frame", "from", "track", "save", "icon hide"} <= reached


@pytest.mark.parametrize("viewport", [FULL_PAGE, IN_LABEL_STUDIO])
def test_all_fits_and_messages_move_nothing(panel, viewport):
    page = panel.page
    page.set_viewport_size(viewport)
    places = """() => Object.fromEntries(['stage', 'time', 'side', 'tracking', 'tools', 'save']
        .map(id => [id, JSON.stringify(document.getElementById(id).getBoundingClientRect())]))"""
    before = page.evaluate(places)
    outside = page.evaluate(
        """() => [...document.querySelectorAll('#workspace :is(button, select, input)')]
            .filter(one => one.checkVisibility() && one.offsetWidth)
            .map(one => [one.id || one.ariaLabel, one.getBoundingClientRect()])
            .filter(([, box]) => box.left < 0 || box.top < 0 || box.right > innerWidth
                || box.bottom > innerHeight)
            .map(([name]) => name)"""
    )
    assert outside == []
    panel.click(30, 30, button="right")
    assert panel.notices == ["Click on the object first, then on what is not part of it."]
    for _ in range(3):
        panel.press("n")
        panel.click(*orange(0))
    assert page.evaluate(places) == before
    assert page.evaluate("() => document.documentElement.scrollHeight <= innerHeight")


def test_what_cannot_be_opened_is_said(browser, service, pictures):
    panel = Panel(browser.new_page(), pictures)
    for query, words in (
        ("?file=/etc/passwd", "SAM2_MEDIA_ROOTS"),
        (f"?file={service.video}.mp4", "discs.mp4.mp4"),
        ("?task=17", "LABEL_STUDIO_URL"),
        (f"?file={service.video}#key=1.2.x", "key"),
    ):
        panel.page.goto("about:blank")
        panel.page.goto(f"{service.url}/panel{query}")
        panel.page.wait_for_selector("#start-text.bad")
        assert words in panel.page.text_content("#start-text"), query
    panel.page.goto(f"{service.url}/panel?file={service.video}.mp4")
    panel.page.wait_for_selector("#start-text.bad")
    panel.page.fill("#start-file", str(service.video))
    panel.page.press("#start-file", "Enter")
    panel.page.wait_for_selector("#workspace:not([hidden]), #question[open]")
    panel.page.close()


def test_a_result_is_exported_as_it_is_shown(panel, tmp_path):
    panel.click(*orange(0))
    panel.press("Control+s")
    panel.page.check("#saving-choices [value=tracks]")
    with panel.page.expect_download() as download:
        panel.page.click("#saving-do")
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    text = json.dumps(json.loads(path.read_text(encoding="utf-8")))
    (mask,) = known_masks(panel, 1).values()
    assert json.dumps(encode_mask(mask).counts) in text


def test_run_lengths_in_the_browser_are_pycocotools_too(panel):
    def run_in_page(script, given):
        return panel.page.evaluate(
            "async given => { const load = (name) => import(`/panel/${name}`); %s }" % script, given
        )

    check_round_trips(run_in_page)
