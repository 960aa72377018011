"""`models`: every name that --model takes, and where its weights are."""

import json

from sam2_model.checkpoints import REMOTE_CHECKPOINTS
from sam2_model.configs import CONFIGS


def test_all_names_are_told_with_what_is_here(run, monkeypatch, tmp_path):
    monkeypatch.setenv("SAM2_CACHE", str(tmp_path))
    remote = REMOTE_CHECKPOINTS["sam2.1_hiera_tiny"]
    (tmp_path / remote.file_name).write_bytes(b"weights")
    (tmp_path / "finetuned").mkdir()
    (tmp_path / "finetuned" / "mine.safetensors").write_bytes(b"12345")
    status, out, _ = run("models", "--json")
    entries = {entry["name"]: entry for entry in json.loads(out)}
    assert status == 0 and set(entries) == {*CONFIGS, "mine"}
    assert entries["demo"]["kind"] == "embedded" and entries["demo"]["path"]
    assert entries["sam2.1_hiera_tiny"]["path"] == str(tmp_path / remote.file_name)
    assert entries["sam2_hiera_large"]["path"] is None
    assert entries["sam2_hiera_large"]["size_bytes"] > 5e8
    assert entries["mine"] == {
        "name": "mine", "kind": "fine-tuned", "size_bytes": 5,
        "path": str(tmp_path / "finetuned" / "mine.safetensors"),
    }


def test_the_list_marks_the_model_of_the_settings(run):
    status, out, _ = run("models")
    assert status == 0
    assert [line for line in out.splitlines() if line.startswith("* demo ")]
    assert "not here yet" in out
