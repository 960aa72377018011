"""The panel on tasks of a Label Studio of sorts: which task, whose work, and what saving asks.

The real Label Studio around it is `test_panel_in_label_studio`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backend.link_keys import KeyPurpose, make_key
from backend.processes import running_backend
from backend.settings import Settings
from tests.backend.label_studio_server import (
    KEY,
    LabelStudioServer,
    problem,
    serving_label_studio,
)
from tests.e2e.panel import Panel
from tests.e2e.test_panel import FRAME_COUNT, SIZE, blue, orange, scene
from tests.video_files import write_video

SECRET = "a secret of these tests, long enough for any"
VIDEO = "/data/local-files/?d=discs.mp4"
CONFIG = """<View>
  <Labels name="labels" toName="video">
    <Label value="Ball" background="#ff8800"/><Label value="Disc" background="#00aaff"/>
  </Labels>
  <Video name="video" value="$video" framerate="25"/>
  <VideoRectangle name="box" toName="video"/>
</View>"""


@pytest.fixture(scope="module")
def label_studio() -> Iterator[LabelStudioServer]:
    with serving_label_studio() as server:
        yield server


@pytest.fixture(scope="module")
def service(label_studio, tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("panel-tasks")
    (folder / "media").mkdir()
    write_video(
        folder / "media" / "discs.mp4", FRAME_COUNT, size=SIZE,
        pictures=[scene(index) for index in range(FRAME_COUNT)],
    )
    variables = {
        "LABEL_STUDIO_URL": label_studio.url, "LABEL_STUDIO_API_KEY": KEY,
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(folder / "media"),
        "SAM2_DATA_FOLDER": str(folder / "data"), "SAM2_LINK_SECRET": SECRET,
    }
    with running_backend(log=folder / "service.log", variables=variables) as url:
        yield url


@pytest.fixture
def project(label_studio) -> int:
    return label_studio.add_project(CONFIG, title="Discs")


@pytest.fixture
def link(service, project) -> str:
    key = make_key(Settings(link_secret=SECRET), project, KeyPurpose.PANEL)
    return f"{service}/panel?video={VIDEO}#key={key}"


@pytest.fixture
def people(browser, pictures) -> Iterator:
    """Panels of browsers that know nothing of each other."""
    contexts = []

    def one() -> Panel:
        contexts.append(browser.new_context(viewport={"width": 900, "height": 480}))
        return Panel(contexts[-1].new_page(), pictures)

    yield one
    for context in contexts:
        context.close()


def save(panel: Panel, way: str) -> None:
    panel.press("Control+s")
    panel.page.check(f"#saving-choices [value={way}]")
    panel.page.click("#saving-do")


def saved(panel: Panel) -> str:
    text = panel.page.text_content("#saving-result .good")
    panel.page.click("#saving-close")
    return text


def test_where_tasks_share_a_video_the_panel_asks_which(people, label_studio, project, link):
    tasks = [label_studio.add_task(project, {"video": VIDEO}) for _ in range(2)]
    label_studio.add_task(label_studio.add_project(CONFIG), {"video": VIDEO})
    panel = people()
    panel.page.goto(link)
    panel.page.wait_for_selector("#start-choices button")
    names = panel.page.locator("#start-choices b").all_text_contents()
    assert names == [f"Task {task}" for task in tasks]
    panel.picture("which-task")
    panel.page.click(f"#start-choices button:has-text('Task {tasks[1]}')")
    panel.wait_until_open()
    assert f"task {tasks[1]}" in panel.page.text_content("#title")
    assert panel.page.locator("#new-label option").all_text_contents() == ["Ball", "Disc"]
    panel.page.reload()
    panel.wait_until_open()
    assert f"task {tasks[1]}" in panel.page.text_content("#title")


def test_saving_asks_when_the_task_has_changed(people, label_studio, project, link):
    task = label_studio.add_task(project, {"video": VIDEO})
    panel = people()
    panel.open(link)
    panel.page.select_option("#new-label", "Disc")
    panel.click(*blue(0))
    assert panel.page.locator(".object select").input_value() == "Disc"
    assert panel.page.locator(".object .swatch").input_value() == "#00aaff"

    save(panel, "annotation")
    panel.picture("saved")
    assert "Saved as annotation" in saved(panel)
    (annotation,) = label_studio.tasks[task]["annotations"]
    assert annotation["result"][0]["value"]["labels"] == ["Disc"]

    panel.press("n")
    panel.page.select_option("#new-label", "Ball")
    panel.click(*orange(0))
    assert panel.page.text_content("#state").startswith("Changes since annotation")
    save(panel, "annotation")  # its own change asks for nothing
    saved(panel)
    (annotation,) = label_studio.tasks[task]["annotations"]
    assert len(annotation["result"]) == 2

    annotation["result"] = annotation["result"][:1]  # somebody in the editor
    annotation["updated_at"] = label_studio.now()
    panel.page.evaluate("() => window.dispatchEvent(new Event('focus'))")
    panel.page.wait_for_selector("[data-name=changed]")
    panel.picture("changed")
    save(panel, "annotation")
    panel.page.wait_for_selector("#question[open]")
    panel.picture("question")
    panel.page.click("#question button:has-text('Do not save')")
    panel.page.wait_for_selector("#saving-result:has-text('Not saved')")
    assert len(annotation["result"]) == 1
    panel.page.click("#saving-do")
    panel.page.click("#question button:has-text('Save all the same')")
    saved(panel)
    (annotation,) = label_studio.tasks[task]["annotations"]
    assert len(annotation["result"]) == 2

    annotation["result"] = annotation["result"][1:]
    annotation["updated_at"] = label_studio.now()
    save(panel, "draft")
    panel.page.click("#question button:has-text('read the task again')")
    panel.page.wait_for_function("() => document.querySelectorAll('.object').length === 1")
    panel.wait_until_still()
    assert panel.page.locator(".object select").input_value() == "Ball"


def test_two_people_on_a_task_see_a_warning_and_not_each_other(people, label_studio, project, link):
    label_studio.add_task(project, {"video": VIDEO})
    one, other = people(), people()
    one.open(link)
    one.click(*orange(0))
    other.open(link, new_session=True)
    assert other.object_count == 0
    assert "Somebody else" in other.page.text_content("[data-name=others]")
    assert one.session_url != other.session_url
    # A link that is opened again goes on with the person's own.
    again = one.session_url
    one.page.goto("about:blank")
    one.open(link)
    assert one.session_url == again and one.object_count == 1


def test_a_save_that_label_studio_refuses_loses_nothing(people, label_studio, project, link):
    task = label_studio.add_task(project, {"video": VIDEO})
    panel = people()
    panel.open(link)
    panel.click(*orange(0))
    path = f"/api/tasks/{task}/annotations/"
    label_studio.special["POST", path] = problem(500, "the disk is full")
    save(panel, "annotation")
    panel.page.wait_for_selector("#saving-result .bad")
    assert "Not done" in panel.page.text_content("#saving-result")
    del label_studio.special["POST", path]
    panel.page.click("#saving-do")
    saved(panel)
    assert len(label_studio.tasks[task]["annotations"]) == 1
