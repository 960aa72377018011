"""`preview`, `evaluate` and `finetune` leave out what `convert` leaves out, and say it alike."""

import json

import pytest

from backend.cli import main
from converters.coco import save_coco
from tests.backend.commands.test_training import NAMES, SHORT, annotated, data  # noqa: F401


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    # Its handler would keep this test's captured stderr for all later ones.
    monkeypatch.setattr("backend.cli.configure_logging", lambda *_, **__: None)


@pytest.fixture
def spoiled(data):  # noqa: F811
    """COCO with a crowd on every frame of the first video, and an annotation of 7."""
    path = data / "data.json"
    save_coco(path, [annotated(name) for name in NAMES])
    document = json.loads(path.read_text())
    crowd = [
        {**entry, "id": 100 + entry["id"], "track_id": 99, "instance_id": 99, "iscrowd": 1}
        for entry in document["annotations"]
        if entry["track_id"] == 1
    ]
    document["annotations"] += [*crowd, 7]
    path.write_text(json.dumps(document))
    return path


COMMANDS = {
    "preview": lambda path, data: [
        "preview", path, "--video", data / "images/one", "--out", data / "x.png", "--name", "one",
    ],
    "evaluate": lambda path, data: [
        "evaluate", path, "--media-root", data / "images", "--quiet", "--device", "cpu",
        "--json", data / "figures.json",
    ],
    "finetune": lambda path, data: [
        "finetune", "--data", path, "--media-root", data / "images", "--out", data / "run", *SHORT,
    ],
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_the_rest_is_used_and_what_is_malformed_is_said(spoiled, data, capsys, command):  # noqa: F811
    arguments = list(map(str, COMMANDS[command](spoiled, data)))
    assert main([*arguments, "--strict"]) == 2
    assert "annotations[20]: must be an object, is 7" in capsys.readouterr().err
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "malformed: annotations[20]: must be an object, is 7" in captured.err.splitlines()
    assert "1 annotations (annotations: must be an object, is …)" in captured.out + captured.err
    if command != "preview":
        assert "1 objects (crowds, by iscrowd)" in captured.err
    if command == "evaluate":
        objects = json.loads((data / "figures.json").read_text())["objects"]
        assert sorted(entry["video"] for entry in objects) == sorted(NAMES)
