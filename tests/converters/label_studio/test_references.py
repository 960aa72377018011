"""How task data names media, and what a name is on disk."""

import base64

import pytest

from converters.label_studio.references import (
    clash_of,
    comparable,
    filled,
    is_cloud,
    path_of,
    steps_of,
    upload_keys,
    uploaded_name,
)


@pytest.mark.parametrize(
    "reference, steps",
    [
        ("/data/upload/3/0a1b2c3d-clip%201.mp4", "data upload 3 0a1b2c3d-clip\u00a01.mp4"),
        ("https://e.org/x/clip%231.mp4?token=1#t=3", "x clip#1.mp4"),
        ("https://e.org/x.mp4?d=3", "x.mp4"),
        (" https://e.org/x.mp4\n", "x.mp4"),
        ("/data/local-files/?d=some/a.mp4", "some a.mp4"),
        ("/data/local-files/?d=dir%5Cfile.mp4", "dir file.mp4"),
        ("/label-studio/data/local-files/?d=a.mp4", "a.mp4"),
        ("s3://bucket/a#1/b?2%20c.mp4", "a#1 b?2%20c.mp4"),
        ("gs://bucket/a.mp4", "a.mp4"),
        ("azure-blob://container/a\u00a0b.mp4", "a\u00a0b.mp4"),
        ("C:\\clips\\a.mp4", "clips a.mp4"),
        ("C:/clips/a.mp4", "clips a.mp4"),
        ("\\\\server\\share\\a.mp4", "server share a.mp4"),
        ("clips\\a.mp4", "clips a.mp4"),
        ("file:///C:/clips/a%20b.mp4", "clips a\u00a0b.mp4"),
        ("/clips/a#1.mp4", "clips a#1.mp4"),
        ("/clips/what?.mp4", "clips what?.mp4"),
        ("/clips/a.mp4?v=2", "clips a.mp4"),
        ("http://[", "[" ),
        ("", ""),
    ],
)
def test_the_path_in_a_reference(reference, steps):
    found = [step.replace(" ", "\u00a0") for step in steps_of(path_of(reference))]
    assert found[-len(steps.split(" ")):] == (steps.split(" ") if steps else [])


def test_label_studios_own_address_of_a_key_is_that_key():
    uri = "s3://bucket/a b#1.mp4"
    encoded = base64.urlsafe_b64encode(uri.encode()).decode()
    assert path_of(f"/tasks/7/presign/?fileuri={encoded}") == "a b#1.mp4"
    assert path_of(f"http://ls/tasks/7/resolve/?fileuri={encoded.rstrip('=')}") == "a b#1.mp4"


@pytest.mark.parametrize(
    "template, expected",
    [
        ("s3://bucket/{file_name}", "s3://bucket/my clip/a#b?.jpg"),
        ("gs://bucket/{name}/{file_name}", "gs://bucket/100% {file_name}/my clip/a#b?.jpg"),
        ("azure-blob://c/{file_name}", "azure-blob://c/my clip/a#b?.jpg"),
        ("S3://bucket/{file_name}", "S3://bucket/my clip/a#b?.jpg"),
        ("https://e.org/{file_name}", "https://e.org/my%20clip/a%23b%3F.jpg"),
        ("/data/local-files/?d={file_name}", "/data/local-files/?d=my%20clip/a%23b%3F.jpg"),
        ("https://e.org/{other}", "https://e.org/{other}"),
    ],
)
def test_urls_are_encoded_and_keys_are_not(template, expected):
    assert filled(template, name="100% {file_name}", file_name="my clip/a#b?.jpg") == expected
    assert is_cloud(template) == (not expected.startswith(("http", "/")))


@pytest.mark.parametrize("template", ["s3://bucket/{file_name}", "https://e.org/{file_name}"])
@pytest.mark.parametrize("name", ["a b.jpg", "100%.jpg", "a#1.jpg", "é?.jpg", "%20.jpg"])
def test_what_is_written_is_read_as_the_same(template, name):
    assert path_of(filled(template, file_name=name)).lstrip("/") == name


@pytest.mark.parametrize(
    "name, uploaded",
    [
        # as Django's get_valid_filename gives them
        ("my clip (1).mp4", "my_clip_1.mp4"),
        ("a+b&c=d.mp4", "abcd.mp4"),
        ("Ä-ö_ü.mp4", "Ä-ö_ü.mp4"),
        ("a#1?.mp4", "a1.mp4"),
        (" x .mp4", "x_.mp4"),
        ("[tag]@home, 2.mp4", "taghome_2.mp4"),
    ],
)
def test_label_studio_makes_names_safe(name, uploaded):
    assert uploaded_name(name) == uploaded
    assert comparable(uploaded) in upload_keys(name)


def test_letters_and_suffixes_compare_in_any_form():
    assert comparable("e\u0301.MP4") == comparable("é.mp4")
    assert comparable("Clip.mp4") != comparable("clip.mp4")


def test_a_taken_or_long_name_has_seven_characters_more():
    assert clash_of("clip_aB3dE6g.mp4") == ("clip", ".mp4")
    assert clash_of("clip_2.mp4") is None
