import json

import pytest

from converters.files import whole_file, write_json


def test_iterators_are_written_as_arrays(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": iter([1, {"b": iter([]), "ü": None}]), "c": [1.5, "犬"]})
    assert json.loads(path.read_bytes()) == {"a": [1, {"b": [], "ü": None}], "c": [1.5, "犬"]}


def test_numbers_that_are_not_json_are_refused(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", iter([1.0, float("nan")]))
    assert list(tmp_path.iterdir()) == []


def test_a_file_appears_whole_or_stays_as_it_was(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"before")
    with pytest.raises(ZeroDivisionError), whole_file(path) as partial:
        partial.write_bytes(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"before" and list(tmp_path.iterdir()) == [path]
    with whole_file(path) as partial:
        partial.write_bytes(b"whole")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"whole" and list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_makes_no_file(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "x"):
        pass
    assert list(tmp_path.iterdir()) == []
