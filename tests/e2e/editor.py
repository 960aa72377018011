"""Label Studio's labeling screen, as a person uses it."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, Request, TimeoutError

from backend.studio import SAMPLE_SIZE
from converters.types import Box

_ANSWER_MS = 620_000
"""Longer than Label Studio waits for its model here."""
_ACTION_MS = 60_000
_CALL_MS = 15_000
_SAVE_SECONDS = 60

_REGIONS = "() => Htx.annotationStore.selected.serializeAnnotation()"
_SUGGESTIONS = "() => Htx.annotationStore.selected.suggestions.size"
_DRAWN = """() => Konva.stages.flatMap(s => s.find('Rect'))
    .filter(r => r.isVisible() && r.strokeWidth() > 0 && r.stroke())
    .map(r => r.getClientRect({skipStroke: true}))"""


_CHOSEN = """key => [...document.querySelectorAll('.lsf-label')]
    .some(label => /selected|active/.test(label.className) && label.innerText.endsWith(key))"""
_DRAFT = """async task => {
    const drafts = (await (await fetch(`/api/tasks/${task}`)).json()).drafts || [];
    return drafts.flatMap(draft => draft.result);
}"""


class Editor:
    """One browser page. Positions are pixels of the sample's frames."""

    def __init__(self, page: Page, label_studio_url: str, pictures: Path) -> None:
        self.page = page
        page.set_default_timeout(_ACTION_MS)
        self._url = label_studio_url
        self._pictures = pictures
        self._task_id = 0

    def log_in(self, email: str, password: str) -> None:
        self.page.goto(f"{self._url}/user/login/")
        self.page.fill("#email", email)
        self.page.fill("#password", password)
        self.page.click("button[type=submit]")
        self.page.wait_for_url(lambda url: "/user/login" not in url)

    def open_task(self, project_id: int, task_id: int, *, auto_annotation: bool = True) -> None:
        """The task with Auto-Annotation on or off, its media shown."""
        self._task_id = task_id
        self.page.goto(f"{self._url}/projects/{project_id}/data?task={task_id}")
        self.page.wait_for_selector(".konvajs-content")
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('video')].every(v => v.readyState >= 2)"
        )
        self.annotate_automatically(auto_annotation)
        self.page.locator("[data-testid=bottombar-undo-button]").wait_for()

    def annotate_automatically(self, on: bool) -> None:
        self._switch("auto-annotation", on)

    def accept_automatically(self, on: bool) -> None:
        self._switch("auto-accept", on)

    def _switch(self, name: str, on: bool) -> None:
        toggle = self.page.locator(f"[data-testid=bottombar-{name}-toggle]")
        toggle.wait_for(state="attached")
        if toggle.is_checked() != on:
            toggle.dispatch_event("click")
            self.page.wait_for_function(
                "([name, on]) => document.querySelector(`[data-testid=bottombar-${name}-toggle]`)"
                ".checked === on",
                arg=[name, on],
            )

    def picture(self, name: str) -> Path:
        """A screenshot that is kept."""
        path = self._pictures / f"{name}.png"
        self.page.screenshot(path=path)
        return path

    # --- what is there -------------------------------------------------------

    def regions(self, region_type: str | None = None) -> list[dict[str, Any]]:
        """The results as they would be submitted."""
        regions = self.page.evaluate(_REGIONS)
        return [r for r in regions if region_type in (None, r["type"])]

    def suggestion_count(self) -> int:
        return self.page.evaluate(_SUGGESTIONS)

    def drawn_boxes(self) -> list[Box]:
        """Boxes that the video's canvas shows now."""
        left, top, scale = self._place(0)
        stage = self.page.locator(".konvajs-content").first.bounding_box()
        assert stage is not None
        left, top = left - stage["x"], top - stage["y"]
        return [
            Box(
                (r["x"] - left) / scale, (r["y"] - top) / scale,
                (r["x"] + r["width"] - left) / scale, (r["y"] + r["height"] - top) / scale,
            )
            for r in self.page.evaluate(_DRAWN)
            if r["width"] > 12 and r["height"] > 12  # handles are smaller
        ]

    # --- what a person does --------------------------------------------------

    def drag(self, start: tuple[float, float], stop: tuple[float, float], canvas: int = 0) -> None:
        left, top, scale = self._place(canvas)
        x, y = (left + start[0] * scale, top + start[1] * scale)
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(left + stop[0] * scale, top + stop[1] * scale, steps=8)
        self.page.mouse.up()

    def draw(self, box: Box, canvas: int = 0) -> None:
        self.drag((box.x_min, box.y_min), (box.x_max, box.y_max), canvas)

    def click(self, x: float, y: float, *, is_negative: bool = False, canvas: int = 0) -> None:
        left, top, scale = self._place(canvas)
        if is_negative:
            self.page.keyboard.down("Alt")
        self.page.mouse.click(left + x * scale, top + y * scale)
        if is_negative:
            self.page.keyboard.up("Alt")

    def draw_unlabelled(self, box: Box) -> str:
        """A box on the video that has no label yet, selected; its id."""
        before = {r["id"] for r in self.regions()}
        self.draw(box)
        self.page.wait_for_function(
            "n => Htx.annotationStore.selected.regions.length === n", arg=len(before) + 1
        )
        (new,) = (r["id"] for r in self.regions() if r["id"] not in before)
        self.select(new)
        return new

    def select(self, region_id: str) -> None:
        self.page.evaluate(
            "id => { const a = Htx.annotationStore.selected;"
            "a.unselectAll(); a.selectArea(a.areas.get(id) ||"
            " [...a.areas.values()].find(r => r.cleanId === id)); }",
            region_id,
        )
        self.page.wait_for_function("() => Htx.annotationStore.selected.selectionSize === 1")

    def go_to_frame(self, ls_frame: int) -> None:
        """The video's 1-based frame."""
        self.page.evaluate(
            "n => Htx.annotationStore.selected.names.get('video').setFrame(n)", ls_frame
        )
        self.page.wait_for_function(
            "n => Htx.annotationStore.selected.names.get('video').frame === n", arg=ls_frame
        )

    def draw_labelled(self, key: str, box: Box, canvas: int = 0) -> dict[str, Any]:
        """The region of a box that is drawn with a label chosen, by its hotkey; none after."""
        before = {r["id"] for r in self.regions()}
        self._until(
            lambda: self.page.evaluate(_CHOSEN, key) or self.page.keyboard.press(key),
            _CHOSEN, key,
        )
        self._until(
            lambda: self.draw(box, canvas),
            "n => Htx.annotationStore.selected.regions.length === n", len(before) + 1,
        )
        self.page.keyboard.press("Escape")  # the region
        if self.page.evaluate(_CHOSEN, key):
            self.page.keyboard.press(key)  # the label, which accepted regions would get
        self.page.wait_for_function(f"key => !({_CHOSEN})(key)", arg=key)
        (new,) = (r for r in self.regions() if r["id"] not in before)
        return new

    def _until(self, do: Callable[[], object], condition: str, argument: object) -> None:
        """Do it, and again when it came before the editor was ready for it."""
        for _ in range(4):
            do()
            try:
                self.page.wait_for_function(condition, arg=argument, timeout=15_000)
                return
            except TimeoutError:
                continue
        raise AssertionError(f"the editor does not come to {condition} with {argument!r}")

    def choose_smart_tool(self, label_key: str, tool: str) -> None:
        """`tool` is "key-point" or "rectangle"; `label_key` the hotkey of its label."""
        self.page.keyboard.press(label_key)
        button = self.page.locator(f"button.lsf-tool_smart[aria-label={tool}-tool]")
        button.wait_for(state="attached")
        button.dispatch_event("click")

    def command(self, text: str) -> None:
        """Type into the text area for commands and press Enter."""
        area = self.page.get_by_placeholder("track, track 100")
        area.fill(text)
        area.press("Enter")

    def accept_suggestions(self) -> None:
        self.page.click("[data-testid=bottombar-accept-suggestions-button]")
        self.page.wait_for_function("() => Htx.annotationStore.selected.suggestions.size === 0")

    def submit(self) -> int:
        """Submit or update; the annotation's id."""
        with self.page.expect_response(
            lambda r: "/annotations" in r.url and r.request.method in ("POST", "PATCH")
        ) as saved:
            self.page.click("[data-testid=bottombar-submit-button]")
        assert saved.value.ok, saved.value.text()
        return saved.value.json()["id"]

    def wait_until_saved(self, *regions: Mapping[str, Any]) -> None:
        """Until Label Studio has the regions in the draft, which it saves by itself."""
        wanted = {r["id"]: _boxes(r) for r in regions}
        types = {r["type"] for r in regions}
        end = time.monotonic() + _SAVE_SECONDS
        while time.monotonic() < end:
            draft = self.page.evaluate(_DRAFT, self._task_id)
            saved = {r["id"]: _boxes(r) for r in draft if r["type"] in types}
            if all(saved.get(key) == boxes for key, boxes in wanted.items()):
                return
            self.page.wait_for_timeout(500)
        raise AssertionError(f"the draft was not saved in {_SAVE_SECONDS} s: {saved}")

    @contextlib.contextmanager
    def model_call(self) -> Iterator[list[Request]]:
        """The block makes the editor call the model; ends when the answer is there and shown."""
        calls: list[Request] = []
        with self.page.expect_request(_is_model_call, timeout=_CALL_MS) as asked:
            yield calls
        calls.append(asked.value)
        self._finish(asked.value)

    def ask(self, action: Callable[[], None]) -> dict[str, Any]:
        """The context of the call that an action makes, once it is answered."""
        with self.model_call() as calls:
            action()
        return json.loads(calls[0].post_data or "{}")["context"]

    def _finish(self, request: Request) -> None:
        response = request.response()
        assert response is not None and response.ok, response and response.text()
        answer = response.json()
        assert "errors" not in answer, answer
        self.page.wait_for_function("() => !Htx.awaitingSuggestions", timeout=_ANSWER_MS)

    def _place(self, canvas: int) -> tuple[float, float, float]:
        """Left and top of the picture on the page, and page pixels a frame pixel."""
        stage = self.page.locator(".konvajs-content:visible").nth(canvas)
        stage.scroll_into_view_if_needed()
        box = stage.bounding_box()
        assert box is not None
        width, height = SAMPLE_SIZE
        scale = min(box["width"] / width, box["height"] / height)
        if stage.evaluate("e => e.closest('[class*=image-element]') === null"):
            scale = min(scale, 1.0)  # a video is not made larger, but stands in the middle
        return (
            box["x"] + (box["width"] - width * scale) / 2,
            box["y"] + (box["height"] - height * scale) / 2,
            scale,
        )


def _boxes(region: Mapping[str, Any]) -> list[tuple[float, ...]]:
    """(frame, x, y, width, height) of the keyframes, or of a rectangle on an image."""
    names = ("frame", "x", "y", "width", "height")
    on_image = {"frame": region.get("item_index", 0), **region["value"]}
    boxes = region["value"].get("sequence", [on_image])
    return [tuple(round(box[name], 6) for name in names) for box in boxes]


def _is_model_call(request: Request) -> bool:
    return "interactive-annotating" in request.url
