import json

import pytest

from converters.coco import save_coco
from converters.davis import save_davis
from converters.formats import Format, image_folder, open_source, recognise
from converters.sav import save_sav
from converters.tracks_json import save_tracks
from converters.youtube_vis import save_youtube_vis, save_youtube_vis_results
from tests.converters.cases import DATA, annotated_video

VIDEOS = (annotated_video("one"), annotated_video("two"))
WRITERS = {
    "coco": (save_coco, "x.json"),
    "youtube-vis": (save_youtube_vis, "x.json"),
    "tracks": (save_tracks, "x.json"),
    "davis": (save_davis, "x"),
    "sav": (save_sav, "x"),
}


@pytest.mark.parametrize(
    ("found", "videos"),
    # A folder of nothing is no data set.
    [*((name, VIDEOS) for name in WRITERS), *((n, ()) for n in ("coco", "youtube-vis", "tracks"))],
)
def test_what_we_write_is_recognised_by_its_content(tmp_path, found, videos):
    save, name = WRITERS[found]
    # The name says nothing.
    save(tmp_path / name, videos)
    assert recognise(tmp_path / name) == Format(found)
    assert [video.name for video in open_source(tmp_path / name)] == [v.name for v in videos]


def test_sav_folders_and_single_files_are_recognised(tmp_path):
    save_sav(tmp_path / "a", VIDEOS, layout="folders")
    assert recognise(tmp_path / "a") == Format.SAV
    (tmp_path / "a/Annotations_6fps").rename(tmp_path / "a/Annotations")
    assert recognise(tmp_path / "a") == Format.SAV
    save_sav(tmp_path / "b", VIDEOS)
    assert [v.name for v in open_source(tmp_path / "b/one_manual.json")] == ["one"]


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({"annotations": [{"id": 1, "segmentation": [], "image_id": 1}], "images": []}, "coco"),
        ({"annotations": [], "categories": [], "images": []}, "coco"),
        ({"annotations": [{"segmentations": []}], "videos": []}, "youtube-vis"),
        ({"annotations": [], "videos": [], "categories": []}, "youtube-vis"),
        ([], "label-studio"),
        ([{"id": 1, "data": {"video": "x"}, "annotations": []}], "label-studio"),
        ([{"id": 1, "video": "x", "annotator": 1, "annotation_id": 2}], "label-studio"),
        ({"id": 1, "annotations": [{"result": []}], "data": {}}, "label-studio"),
        ({"id": 1, "annotations": [], "data": {}}, "label-studio"),
        # A target storage's: an annotation with its task inside.
        ({"id": 1, "result": [], "task": {"id": 1, "data": {"images": []}}}, "label-studio"),
        ([{"id": 1, "result": [], "task": {"id": 1, "data": {}}}], "label-studio"),
        # What comes first may be damaged.
        ([None, [1, [2]], "x", {}, {"id": 1, "data": {}}], "label-studio"),
    ],
)
def test_json_files_are_told_apart(tmp_path, document, found):
    (tmp_path / "x.json").write_text(json.dumps(document))
    assert recognise(tmp_path / "x.json") == Format(found)


def test_a_real_export_is_recognised():
    assert recognise(DATA / "export_videorectangle_with_extra_fields.json") == Format.LABEL_STUDIO


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "is none of coco, youtube-vis"),
        ("[[1], {}]", r"its items have \[\]"),
        ('[{"a": 1}]', r"its items have \['a'\]"),
        ('{"a": 1}', r"it has the keys \['a'\]"),
        ("3", "is none of"),
        ("no", "is not valid JSON"),
    ],
)
def test_what_is_none_of_them_is_said(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        recognise(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"\0\0\0\x20ftypisom\0\0", "a video (mp4)"),
        (b"\x1aE\xdf\xa3\x01", "a video (Matroska or WebM)"),
        (b"RIFF\0\0\0\0AVI LIST", "a video (AVI)"),
        (b"\x89PNG\r\n\x1a\n", "an image (PNG)"),
        (b"\xff\xd8\xff\xe0", "an image (JPEG)"),
        (b"GIF89a", "an image (GIF)"),
        (b"PK\x03\x04", "a zip archive: unpack it first"),
        (b"\x1f\x8b\x08", "compressed (gzip): unpack it first"),
        ('{"images": []}'.encode("utf-16"), "text in UTF-16: write it as UTF-8"),
        (b"<View></View>", "XML or HTML"),
        (b"\x01\x02\x00\x03", "a binary file of an unknown kind"),
    ],
)
def test_a_file_that_is_no_data_set_at_first_sight_is_named_for_what_it_is(
    tmp_path, content, kind
):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError) as refused:
        recognise(tmp_path / "x.json")
    assert str(refused.value).startswith(f"{tmp_path}/x.json: is {kind}; a data set is a JSON file")


def test_results_are_no_data_set(tmp_path):
    save_youtube_vis_results(tmp_path / "r.json", VIDEOS)
    with pytest.raises(ValueError, match="YouTube-VIS results, which name no videos"):
        recognise(tmp_path / "r.json")


def test_folders_that_are_none_of_them_are_said(tmp_path):
    with pytest.raises(ValueError, match="is no data set"):
        recognise(tmp_path)
    with pytest.raises(FileNotFoundError):
        recognise(tmp_path / "none")


def test_a_folder_of_splits_names_them(tmp_path):
    for split in ("sav_val", "sav_train"):
        save_sav(tmp_path / split, VIDEOS, layout="folders", split=split.removeprefix("sav_"))
    with pytest.raises(ValueError, match="each of its folders sav_train, sav_val is one"):
        recognise(tmp_path)
    assert recognise(tmp_path / "sav_val") == Format.SAV


def test_images_are_expected_where_each_format_has_them(tmp_path):
    save_coco(tmp_path / "x.json", VIDEOS)
    save_davis(tmp_path / "d", VIDEOS)
    save_sav(tmp_path / "s", VIDEOS)
    assert image_folder(tmp_path / "x.json") == tmp_path
    assert image_folder(tmp_path / "d") == tmp_path / "d/JPEGImages"
    assert image_folder(tmp_path / "s") == tmp_path / "s/JPEGImages_24fps"
