import json

import pytest

from converters.files import write_json


def test_iterators_are_written_as_arrays(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": iter([1, {"b": iter([]), "ü": None}]), "c": [1.5, "犬"]})
    assert json.loads(path.read_bytes()) == {"a": [1, {"b": [], "ü": None}], "c": [1.5, "犬"]}


def test_numbers_that_are_not_json_are_refused(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "x.json", iter([1.0, float("nan")]))
    assert list(tmp_path.iterdir()) == []
