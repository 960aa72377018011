import json
import tracemalloc

import pytest

from converters.json_stream import location_text, read_parts


def written(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def parts(path, patterns, **options):
    return [(p.pattern, location_text(p.location), p.value) for p in read_parts(path, patterns, **options)]


def test_parts_come_in_the_order_of_the_file_and_without_the_parts_in_them(tmp_path):
    path = written(
        tmp_path,
        '{"z": {"a": [1]}, "v": [{"n": "one", "t": [{"m": [1, 2], "k": 3}, {"m": []}]}, {"n": "two"}]}',
    )
    assert parts(path, ["v[]", "v[].t[]", "v[].t[].m[]"]) == [
        ("v[].t[].m[]", "v[0].t[0].m[0]", 1),
        ("v[].t[].m[]", "v[0].t[0].m[1]", 2),
        ("v[].t[]", "v[0].t[0]", {"k": 3}),
        ("v[].t[]", "v[0].t[1]", {}),
        ("v[]", "v[0]", {"n": "one"}),
        ("v[]", "v[1]", {"n": "two"}),
    ]


def test_arrays_of_arrays_single_values_and_skipped_parts(tmp_path):
    path = written(tmp_path, '{"m": [[1, null], []], "id": "x", "a": [{"big": [1, [2]], "b": 1.5}]}')
    assert parts(path, ["m[]", "m[][]", "id", "a[]"], skip=["a[].big"]) == [
        ("m[][]", "m[0][0]", 1),
        ("m[][]", "m[0][1]", None),
        ("m[]", "m[0]", []),
        ("m[]", "m[1]", []),
        ("id", "id", "x"),
        ("a[]", "a[0]", {"b": 1.5}),
    ]


def test_a_byte_order_mark_is_no_hindrance(tmp_path):
    assert parts(written(tmp_path, b'\xef\xbb\xbf{"a": [1]}'), ["a[]"]) == [("a[]", "a[0]", 1)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{x}", r"x.json: is not valid JSON[^^\n]*$"),
        ("", "x.json: is not valid JSON"),
        ("{", "x.json: .*is not valid JSON"),
        ('{"a": [{"b": 1}, {"b": [0, NaN]}]}', r"x.json: a\[1\].b\[1\]: is not valid JSON.*NaN"),
        ('{"z": [{"c": [1, 2, NaN]}], "a": []}', r"z\[0\].c\[2\]: is not valid JSON"),
        ('{"a": [{"b": Infinity}]}', r"a\[0\].b: is not valid JSON"),
        ('{"a": [1]} {"a": [2]}', "is not valid JSON"),
        (b'{"a": ["\xff"]}', "is not valid JSON"),
        ('{"a": {"b": 1}}', "a: must be an array, is an object"),
        ('{"a": null}', "a: must be an array, is a null"),
        ("[1]", "x.json: must be an object, is an array"),
        ('{"a": [' + "[" * 200 + "]" * 200 + "]}", "nested deeper than 100"),
    ],
)
def test_what_is_no_such_file_is_refused_with_the_place(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        parts(written(tmp_path, text), ["a[]"])


def test_a_large_file_is_never_in_memory(tmp_path):
    path = tmp_path / "large.json"
    item = json.dumps({"counts": list(range(500))})
    with open(path, "w") as file:
        file.write('{"other": [' + ",".join([item] * 1000) + '], "a": [{"s": [')
        file.write(",".join([item] * 1000) + "]}]}")
    assert path.stat().st_size > 4_000_000
    tracemalloc.start()
    count = sum(1 for _ in read_parts(path, ["a[].s[]"]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 1000
    assert peak < 1_500_000
