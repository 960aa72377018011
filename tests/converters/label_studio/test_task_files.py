"""The files of a target storage are a source like an export."""

import json

import pytest

from converters.formats import Format, image_folder, open_source, recognise
from converters.label_studio.config import parse_label_config
from converters.label_studio.export import ExportOptions, export_task, load_export, read_export
from converters.label_studio.task_files import read_tasks, storage_files
from converters.report import Report
from tests.converters.cases import DATA, annotated_video, constant_rate_info, moving_track
from tests.converters.label_studio.test_malformed_exports import (
    FRAMES_CONFIG,
    FRAMES_XML,
    NEW,
    OLD,
    frames_task,
    polygon,
)


def stored(annotation, *regions, task=7, updated=OLD, clip="clip", **fields):
    """An annotation as a target storage has it (the fields that count here)."""
    return {
        "id": annotation, "result": list(regions), "updated_at": updated, "was_cancelled": False,
        "ground_truth": False, "completed_by": {"id": 1, "email": "a@example.com"}, "project": 1,
        "task": {"id": task, "data": {"frames": [f"/data/{clip}/f{n}.jpg" for n in range(6)]},
                 "updated_at": updated, "predictions": [], "drafts": []},
        **fields,
    }  # fmt: skip


def write(folder, files):
    for name, document in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = document if isinstance(document, str) else json.dumps(document, indent=2)
        path.write_text(text)
    return folder


def read(source, **options):
    report = Report()
    options = ExportOptions(label_config=FRAMES_CONFIG, **options)
    items = list(read_export(source, options, report=report))
    return [(item.video.name, item.source, item.video.tracks[0].object_id) for item in items], report


def test_a_file_an_annotation_by_number(tmp_path):
    write(tmp_path, {
        "10": stored(10, polygon("ten"), task=3),
        "9": stored(9, polygon("nine"), task=2),
        "2": stored(2, polygon("two"), task=1),
    })  # fmt: skip
    assert recognise(tmp_path) == recognise(tmp_path / "9") == Format.LABEL_STUDIO
    found, report = read(tmp_path)
    assert found == [
        ("1-clip", "annotations 2", "two"),
        ("2-clip", "annotations 9", "nine"),
        ("3-clip", "annotations 10", "ten"),
    ]
    assert report == Report()
    assert read(tmp_path / "9")[0] == found[1:2]
    assert [v.name for v in open_source(tmp_path, label_config=FRAMES_XML)] == [f[0] for f in found]
    assert image_folder(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("files", "source"),
    [
        ([stored(1, polygon(), updated=NEW), stored(2, polygon())], "annotations 1"),
        ([stored(1, polygon(), ground_truth=True), stored(2, polygon(), updated=NEW)], "annotations 1"),
        ([stored(1, polygon()), stored(2, updated=NEW)], "annotations 1"),
        ([stored(1, polygon()), stored(2, polygon(), updated=NEW, was_cancelled=True)], "annotations 1"),
        # A file an annotation, and a file of the task with both, as a setting of the storage gives.
        ([stored(1, polygon()), {**stored(0)["task"], "annotations": [
            stored(1, polygon()), stored(2, polygon(), updated=NEW)]}], "annotations 2"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("names", [("1", "2"), ("2", "1"), ("1.json", "b/2.JSON")])
def test_annotations_of_one_task_in_several_files_are_chosen_among(tmp_path, files, source, names):
    write(tmp_path, dict(zip(names, files)))
    found, _ = read(tmp_path)
    assert [item[1] for item in found] == [source]


def test_all_annotations_of_a_task_can_be_read_once_each(tmp_path):
    both = {**stored(0)["task"], "annotations": [stored(1, polygon()), stored(2, polygon())]}
    write(tmp_path, {"1": stored(1, polygon()), "7.json": both})
    found, _ = read(tmp_path, annotations="all")
    assert [item[0] for item in found] == ["7-clip-annotations-1", "7-clip-annotations-2"]


def test_a_folder_of_tasks_and_of_exports(tmp_path):
    write(tmp_path, {
        "1.json": frames_task(polygon("one"), id=1),
        "2.json": [frames_task(polygon("two"), id=2), frames_task(polygon("three"), id=3)],
        "4.json": [frames_task(polygon("four"), id=4)],
    })  # fmt: skip
    assert [item[2] for item in read(tmp_path)[0]] == ["one", "two", "three", "four"]
    assert [task["id"] for task in read_tasks(tmp_path)] == [1, 2, 3, 4]


def test_tasks_of_one_id_with_other_data_are_not_taken_for_one(tmp_path):
    write(tmp_path, {
        "a/1": stored(1, polygon("a"), task=1),
        "b/1": stored(1, polygon("b"), task=1, clip="other"),
    })  # fmt: skip
    assert read(tmp_path)[0] == [
        ("1-clip", "annotations 1", "a"), ("1-other", "annotations 1", "b"),
    ]  # fmt: skip


def test_files_that_are_no_tasks_are_left_out_and_counted(tmp_path):
    write(tmp_path, {
        "1": stored(1, polygon()), "2": '{"id": 2, "result": [', "3": "", "4": {"id": 4, "result": []},
        "5": [[1, 2]], "51": [None, None], "6.json": {"name": "x"}, "README": "of the bucket", "7": {**stored(7), "task": 7},
        ".hidden": "x", "picture.png": "x", ".git/8": stored(8, polygon()),
    })  # fmt: skip
    found, report = read(tmp_path)
    assert [item[1] for item in found] == ["annotations 1"]
    # All but the hidden ones and those that another suffix tells apart.
    assert sum(report.dropped.values()) == 9 == len(report.malformed)
    with pytest.raises(ValueError, match=r"2: tasks\[0\] is not valid JSON"):
        list(load_export(tmp_path, label_config=FRAMES_XML))


def test_the_place_of_a_bad_region_names_the_file(tmp_path):
    write(tmp_path, {
        "s/5": stored(5, polygon(), updated=NEW),
        "s/6": stored(6, polygon(), polygon("bad", image_rotation=90), updated=NEW),
    })  # fmt: skip
    _, report = read(tmp_path)
    (said,) = report.malformed
    assert said.startswith("tasks[s/5, s/6].annotations[1].result[1].image_rotation: 90 must be 0")
    assert list(report.dropped)[0].startswith("regions (image_rotation: … must be …")


def test_one_annotation_alone_and_an_array_of_them(tmp_path):
    assert [i.source for i in export_task(
        stored(3, polygon()), ExportOptions(label_config=FRAMES_CONFIG)
    )] == ["annotations 3"]  # fmt: skip
    path = tmp_path / "all.json"
    path.write_text(json.dumps([stored(3, polygon("a"), task=1), stored(4, polygon("b"), task=2)]))
    assert recognise(path) == Format.LABEL_STUDIO
    assert [item[2] for item in read(path)[0]] == ["a", "b"]


def test_an_annotation_without_its_task_says_so(tmp_path):
    path = tmp_path / "5"
    path.write_text(json.dumps({"id": 5, "result": [], "task": 7}))
    assert recognise(path) == Format.LABEL_STUDIO
    with pytest.raises(ValueError, match=r"tasks\[0\]\.task: 7 must be the task itself, with its data"):
        list(load_export(path))


def test_other_folders_of_json_are_not_taken_for_a_storage(tmp_path):
    from converters.coco import save_coco
    from converters.sav import save_sav

    save_sav(tmp_path / "sav", [annotated_video("one")])
    write(tmp_path / "sav", {"1": stored(1, polygon())})
    assert recognise(tmp_path / "sav") == Format.SAV
    write(tmp_path / "coco", {"label_studio.json": [frames_task(polygon())]})
    save_coco(tmp_path / "coco/a.json", [annotated_video("one")])
    for folder in ("coco", "empty"):
        (tmp_path / folder).mkdir(exist_ok=True)
        with pytest.raises(ValueError, match="is no data set: .* Label Studio target storage"):
            recognise(tmp_path / folder)


def test_files_come_by_number_and_special_files_are_not_opened(tmp_path):
    import os

    write(tmp_path, {name: "x" for name in ("10", "9", "b/1", "a.json", "x.txt", ".x")})
    os.mkfifo(tmp_path / "5")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    names = [str(path.relative_to(tmp_path)) for path in storage_files(tmp_path)]
    assert names == ["9", "10", "a.json", "b/1"]


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        ("target_storage_annotations", [(1, "annotations 2", ("Car",)), (2, "annotations 4", ("Dog",))]),
        # With FUTURE_SAVE_TASK_TO_STORAGE.
        ("target_storage_tasks", [(3, "annotations 6", ("Car",)), (4, "annotations 8", ("Dog",))]),
    ],
)
def test_the_files_of_a_real_server(folder, found):
    """Captured from Label Studio 1.23.2: the newest annotation of the first task is empty."""
    assert recognise(DATA / folder) == Format.LABEL_STUDIO
    xml = (DATA / "configs/config_video_rectangle.xml").read_text()
    report = Report()
    options = ExportOptions(label_config=parse_label_config(xml))
    items = list(read_export(DATA / folder, options, report=report))
    assert [(i.task_id, i.source, i.video.tracks[0].labels) for i in items] == found
    masks = moving_track(constant_rate_info(10), range(3)).masks
    assert all(item.video.tracks[0].masks == masks for item in items)
    assert report.changed == {"tasks whose newest annotation is empty, an older one was read": 1}
