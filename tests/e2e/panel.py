"""The SAM 2 panel, as a person uses it. Positions are pixels of the video, frames count from 1."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Frame, Page

_ANSWER_MS = 300_000
_STILL = """() => {
    const canvas = document.getElementById('canvas');
    return document.getElementById('state').textContent !== 'Working …'
        && canvas.dataset.frame === String(document.getElementById('frame').value - 1);
}"""
_DRAWN = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
_PLACE = """([x, y]) => {
    const box = document.getElementById('canvas').getBoundingClientRect();
    const [width, height] = document.getElementById('facts').textContent.match(/\\d+/g).map(Number);
    const scale = Math.min(box.width / width, box.height / height);
    return [
        box.left + box.width / 2 + (x - width / 2) * scale,
        box.top + box.height / 2 + (y - height / 2) * scale,
    ];
}"""
_SHOWN = "() => document.getElementById('canvas').toDataURL('image/png').split(',')[1]"
_TRACKING = "state => document.getElementById('progress-text').textContent.startsWith(state)"


class Panel:
    """One page with the panel, not zoomed; or a frame of a page, given as `view`."""

    def __init__(self, page: Page, pictures: Path, view: Frame | None = None) -> None:
        self.page = page
        self.view = view or page
        self._pictures = pictures
        self.problems: list[str] = []
        """What the page's scripts and requests had to complain of."""
        page.set_default_timeout(_ANSWER_MS)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._note)

    def _note(self, message) -> None:
        if message.type == "error":
            self.problems.append(message.text)

    def open(self, url: str, *, new_session: bool = False) -> None:
        """`new_session`: whatever is known of the same video."""
        self.page.goto(url)
        self.view.wait_for_selector("#workspace:not([hidden]), #question[open]")
        if new_session and self.view.is_visible("#question"):
            self.view.click("#question button.primary")
        self.wait_until_open()

    def wait_until_open(self) -> None:
        self.view.wait_for_selector("#workspace:not([hidden])")
        self.wait_until_still()

    def wait_until_still(self) -> None:
        """Until all that was asked for is answered and drawn."""
        self.view.wait_for_function(_STILL)
        self.view.evaluate(_DRAWN)

    def wait_for_tracking(self, state: str = "done") -> None:
        self.view.wait_for_function(_TRACKING, arg=state)
        self.wait_until_still()

    def picture(self, name: str) -> None:
        """A screenshot that is kept."""
        self.page.screenshot(path=self._pictures / f"panel-{name}.png")

    # --- what a person does --------------------------------------------------

    def click(self, x: float, y: float, *, button: str = "left", alt: bool = False) -> None:
        left, top = self._place(x, y)
        if alt:
            self.page.keyboard.down("Alt")
        self.page.mouse.click(left, top, button=button)
        if alt:
            self.page.keyboard.up("Alt")
        self.wait_until_still()

    def drag(self, *points: tuple[float, float]) -> None:
        for number, point in enumerate(points):
            self.page.mouse.move(*self._place(*point), steps=8)
            if number == 0:
                self.page.mouse.down()
        self.page.mouse.up()
        self.wait_until_still()

    def _place(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of the video is on the page."""
        left, top = self.view.evaluate(_PLACE, [float(x), float(y)])
        if isinstance(self.view, Frame):
            box = self.view.frame_element().bounding_box()
            assert box is not None
            left, top = left + box["x"], top + box["y"]
        return left, top

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
        self.wait_until_still()

    def go_to(self, frame: int) -> None:
        self.view.fill("#frame", str(frame))
        self.view.press("#frame", "Enter")
        self.view.focus("#canvas")
        self.wait_until_still()

    # --- what is seen ----------------------------------------------------------

    @property
    def frame(self) -> int:
        return int(self.view.input_value("#frame"))

    @property
    def object_count(self) -> int:
        return self.view.locator(".object").count()

    @property
    def notices(self) -> list[str]:
        return self.view.locator(".notice p").all_text_contents()

    @property
    def session_url(self) -> str:
        """Of the API."""
        session_id = self.view.evaluate("() => new URLSearchParams(location.search).get('session')")
        root = self.view.evaluate("() => location.origin")
        return f"{root}/api/sessions/{session_id}"

    def shown(self, size: tuple[int, int]) -> np.ndarray:
        """(height, width, 3) int16: the canvas, at the video's size."""
        self.wait_until_still()
        image = Image.open(io.BytesIO(base64.b64decode(self.view.evaluate(_SHOWN))))
        width, height = size
        scale = min(image.width / width, image.height / height)
        left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
        box = (left, top, left + width * scale, top + height * scale)
        return np.asarray(image.convert("RGB").resize(size, box=box), np.int16)

    def masked(self, size: tuple[int, int]) -> np.ndarray:
        """(height, width) bool: which pixels the masks change; not what marks cover."""
        self.view.focus("#canvas")
        with_masks = self.shown(size)
        self.press("m")
        without = self.shown(size)
        self.press("m")
        return np.abs(with_masks - without).max(axis=2) > 10
