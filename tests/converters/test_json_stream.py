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
        ('{"a": [{"b": 1}, {"b": [0, Nan]}]}', r"x.json: a\[1\].b\[1\]: is not valid JSON.*Nan"),
        ('{"z": [{"c": [1, 2, nope]}], "a": []}', r"z\[0\].c\[2\]: is not valid JSON"),
        ('{"a": [{"b": Infinite}]}', r"a\[0\].b: is not valid JSON"),
        ('{"a": [1]} {"a": [2]}', "is not valid JSON"),
        (b'{"a": ["\xff"]}', "is not valid JSON"),
        ('{"a": {"b": 1}}', "a: must be an array, is an object"),
        ("[1]", "x.json: must be an object, is an array"),
        ('{"a": [' + "[" * 200 + "]" * 200 + "]}", "nested deeper than 100"),
    ],
)
def test_what_is_no_such_file_is_refused_with_the_place(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        parts(written(tmp_path, text), ["a[]"])


def test_what_python_and_javascript_write_for_numbers_that_json_has_not(tmp_path):
    text = '{"a": [{"x": NaN, "y": [-Infinity, Infinity], "n": 18446744073709551615, "f": 0.5}]}'
    (part,) = read_parts(written(tmp_path, text), ["a[]"])
    assert part.value == {"x": None, "y": [None, None], "n": "18446744073709551615", "f": 0.5}


@pytest.mark.parametrize("padding", range(0, 40))
def test_numbers_and_texts_are_the_same_wherever_a_read_ends(tmp_path, padding):
    values = ["NaN, [NaN]", 'a "NaN" \\\\', 'b\\', "c"] * 3
    inner = ",".join(json.dumps(value) + ", -Infinity, NaN, 1e5, 0.1234567890123456789" for value in values)
    text = '{"p": "' + "x" * (65536 - 260 + padding * 7) + '", "a": [' + inner + "]}"
    found = [part.value for part in read_parts(written(tmp_path, text), ["a[]"])]
    assert found == [v for value in values for v in (value, None, None, 1e5, 0.12345678901234568)]


def test_null_is_nothing_and_another_kind_is_left_to_the_part_around_it(tmp_path):
    patterns = ["a[]", "a[].b[]", "a[].c.d"]
    assert parts(written(tmp_path, '{"a": null}'), patterns) == []
    path = written(tmp_path, '{"a": [5, {"b": null, "c": []}, {"b": {"x": [1]}}, null]}')
    assert parts(path, patterns) == [
        ("a[]", "a[0]", 5),
        ("a[]", "a[1]", {"b": None, "c": []}),
        ("a[]", "a[2]", {"b": {"x": [1]}}),
        ("a[]", "a[3]", None),
    ]
    # Without a part around it there is nobody to tell.
    assert parts(path, ["a[].b[]"]) == []


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
