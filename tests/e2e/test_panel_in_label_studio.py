"""The panel in the real labeling screen: from the first click to a data set with its masks."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Frame, Page

from backend.studio import SAMPLE_SIZE, write_sample
from converters.label_studio.lifespan import region_to_track
from converters.masks import decode_mask
from converters.types import MaskRLE
from converters.youtube_vis import load_youtube_vis
from sam2_model.video import open_frame_source
from tests.e2e.conftest import PROGRAM
from tests.e2e.objects import OPOSSUM, STANDING_PERSON
from tests.e2e.panel import Panel

FRAME_COUNT = 60
MIDDLE = 31
"""Counted from 1."""
_OPEN_MS = 240_000


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "opossum.mp4"
    return write_sample(PROGRAM, path, frame_count=FRAME_COUNT)


@pytest.fixture(scope="module")
def project(studio) -> int:
    return studio.create_project("Panel", "video-panel")


@pytest.fixture
def in_panel(editor, pictures) -> Iterator:
    """Opens a task and gives the panel in it."""

    def opened(project_id: int, task_id: int) -> Panel:
        editor.open_task(project_id, task_id, auto_annotation=False)
        panel = Panel(editor.page, pictures, frame_of_panel(editor.page))
        panel.wait_until_open()
        return panel

    return opened


def frame_of_panel(page: Page) -> Frame:
    """The editor draws it twice: the one that stays."""
    iframe = page.locator("iframe[src*='/panel?']")
    iframe.wait_for()
    iframe.scroll_into_view_if_needed()
    inside = page.frame_locator("iframe[src*='/panel?']")
    workspace, question = inside.locator("#workspace:not([hidden])"), inside.locator("#question")
    workspace.or_(question).filter(visible=True).wait_for(timeout=_OPEN_MS)
    if question.is_visible():
        # This browser keeps nothing for a frame of another site, so it asks whose work it is.
        question.locator("button:has-text('Go on')").click()
        workspace.wait_for(timeout=_OPEN_MS)
    (frame,) = [frame for frame in page.frames if "/panel?" in frame.url]
    return frame


def centre(box) -> tuple[float, float]:
    return (box.x_min + box.x_max) / 2, (box.y_min + box.y_max) / 2


def is_within(mask: np.ndarray, box) -> float:
    """The part of the mask that lies in the box, or just beside it."""
    near = mask[int(box.y_min) - 12 : int(box.y_max) + 12, int(box.x_min) - 12 : int(box.x_max) + 12]
    return near.sum() / mask.sum()


def object_ids(panel: Panel) -> list[str]:
    """In the order in which they were made."""
    with urllib.request.urlopen(panel.session_url) as answer:
        return [item["id"] for item in json.load(answer)["objects"]]


def known_masks(panel: Panel) -> list[dict[str, MaskRLE]]:
    """By frame, the masks by object id, as the service has them for the page."""
    found = []
    for index in range(FRAME_COUNT):
        with urllib.request.urlopen(f"{panel.session_url}/frames/{index}/masks") as answer:
            objects = json.load(answer)["objects"]
        found.append(
            {
                key: MaskRLE(*shown["mask"]["size"], shown["mask"]["counts"])
                for key, shown in objects.items()
                if shown["mask"] is not None
            }
        )
    return found


def save(panel: Panel, way: str = "annotation") -> str:
    """What the page says of it."""
    panel.view.click("#save")
    panel.view.check(f"#saving-choices [value={way}]")
    panel.view.click("#saving-do")
    panel.view.wait_for_selector("#saving-result .good, #saving-result .bad, #question[open]")
    said = panel.view.text_content("#saving-result") or ""
    if panel.view.is_visible("#question"):
        return panel.view.text_content("#question") or ""
    panel.view.click("#saving-close")
    return said


def test_from_clicks_in_the_panel_to_a_data_set_with_its_masks(
    in_panel, editor, studio, label_studio, project, clip, tmp_path
):
    task = studio.import_video(project, clip)
    panel = in_panel(project, task)
    panel.picture("ls-opened")

    panel.click(*centre(OPOSSUM))
    clicked = panel.masked(SAMPLE_SIZE)
    assert clicked.sum() > 500 and is_within(clicked, OPOSSUM) > 0.9
    panel.picture("ls-clicked")
    rows, columns = np.nonzero(clicked)
    x, y = columns[rows.argmax()], rows.max() - 8
    panel.click(x, y, alt=True)
    smaller = panel.masked(SAMPLE_SIZE)
    assert 0 < smaller.sum() < clicked.sum() and not smaller[y, x]
    panel.picture("ls-negative")
    panel.press("Control+z")
    assert abs(int(panel.masked(SAMPLE_SIZE).sum()) - int(clicked.sum())) < 50

    panel.press("n")
    box = STANDING_PERSON
    panel.drag((box.x_min, box.y_min), (box.x_max, box.y_max))
    assert panel.object_count == 2
    person = panel.masked(SAMPLE_SIZE) & ~clicked
    assert person.sum() > 500 and is_within(person, box) > 0.9
    panel.picture("ls-box")

    panel.press("t")
    panel.wait_for_tracking()
    before = known_masks(panel)
    first, second = object_ids(panel)
    assert all(first in masks for masks in before)
    panel.picture("ls-tracked")

    panel.press("1")
    panel.go_to(MIDDLE)
    shown = decode_mask(before[MIDDLE - 1][first])
    rows, columns = np.nonzero(shown)
    low = int(rows.argmax())
    panel.click(columns[low], rows[low] - 6, button="right")
    panel.press("t")
    panel.wait_for_tracking()
    after = known_masks(panel)
    assert after[: MIDDLE - 1] == before[: MIDDLE - 1]
    assert after[MIDDLE - 1][first] != before[MIDDLE - 1][first]
    panel.go_to(MIDDLE)
    truth = np.zeros(SAMPLE_SIZE[::-1], bool)
    for mask in after[MIDDLE - 1].values():
        truth |= decode_mask(mask)
    seen = panel.masked(SAMPLE_SIZE)
    assert (seen & truth).sum() / (seen | truth).sum() > 0.85
    panel.picture("ls-corrected")

    assert "Saved as annotation" in save(panel)
    panel.picture("ls-saved")
    (annotation,) = label_studio.annotations(task)

    panel = in_panel(project, task)  # the page is loaded again
    regions = editor.regions("videorectangle")
    assert [region["id"] for region in regions] == [first, second]
    assert len(annotation["result"]) == 2
    assert panel.object_count == 2
    assert known_masks(panel) == after
    panel.picture("ls-loaded-again")
    with open_frame_source(clip) as source:
        info = source.info
    for region in regions:
        track = region_to_track(region, info, info.fps)
        shown = {i: masks[region["id"]] for i, masks in enumerate(after) if region["id"] in masks}
        assert shown == dict(track.masks)

    out = tmp_path / "set"
    studio.command(
        "export", "--project", str(project), "--format", "youtube-vis", "--out", str(out)
    )
    (video,) = load_youtube_vis(out / "youtube_vis.json")
    assert [track.labels for track in video.tracks] == [("Opossum",), ("Opossum",)]
    exported = [
        [track.masks[index].counts for track in video.tracks if index in track.masks]
        for index in range(FRAME_COUNT)
    ]
    assert exported == [
        [masks[key].counts for key in (first, second) if key in masks] for masks in after
    ]


def test_a_box_drawn_in_the_editor_meanwhile_is_not_overwritten_unasked(
    in_panel, editor, studio, label_studio, project, short_sample
):
    task = studio.import_video(project, short_sample)
    panel = in_panel(project, task)
    panel.click(*centre(OPOSSUM))
    editor.draw_unlabelled(STANDING_PERSON)
    editor.wait_until_saved(*editor.regions())
    assert "changed in Label Studio" in save(panel)
    panel.picture("ls-task-changed")
    panel.view.click("#question button:has-text('all the same')")
    panel.view.wait_for_selector("#saving-result .good")
    (annotation,) = label_studio.annotations(task)
    assert [region["id"] for region in annotation["result"]] == object_ids(panel)


@pytest.mark.parametrize("way", ["draft", "prediction"])
def test_a_draft_and_a_prediction_are_there_when_the_task_is_opened_again(
    in_panel, editor, studio, label_studio, project, short_sample, way
):
    task = studio.import_video(project, short_sample)
    panel = in_panel(project, task)
    panel.click(*centre(OPOSSUM))
    assert f"Saved as {way}" in save(panel, way)
    assert f"Saved as {way}" in save(panel, way)
    stored = label_studio.drafts(task) if way == "draft" else label_studio.predictions(task)
    assert len(stored) == 1 and label_studio.annotations(task) == []
    in_panel(project, task)
    editor.page.wait_for_function(
        "() => Htx.annotationStore.selected.serializeAnnotation()"
        ".some(region => region.type === 'videorectangle')"
    )
    editor.picture(f"panel-ls-{way}")
