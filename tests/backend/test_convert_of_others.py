"""`convert` on what others write: what is left out is said, ids stay, names get folders."""

import json

import pytest

from backend.cli import main
from converters.davis import save_davis
from converters.formats import open_source
from converters.frames import write_frames
from converters.report import PLACES_KEPT
from tests.video_files import index_picture

POLYGON = [4, 5, 13, 5, 13, 14, 4, 14]


@pytest.fixture(autouse=True)
def quiet_environment(monkeypatch):
    for name in ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY", "SAM2_MODEL", "SAM2_DIRECTION"):
        monkeypatch.delenv(name, raising=False)
    # pytest's own log handlers stay as they are.
    monkeypatch.setattr("backend.cli.configure_logging", lambda *_, **__: None)


def run(source, to, out, *options):
    return main(["convert", str(source), "--to", to, "--out", str(out), *map(str, options)])


def write(path, document):
    path.write_text(json.dumps(document))
    return path


def coco(names, annotations, categories=None, **more):
    return {
        "images": [{"id": i, "file_name": n, "width": 64, "height": 48} for i, n in enumerate(names)],
        "annotations": [
            {"id": n, "category_id": 1, "segmentation": [POLYGON], "bbox": [4, 5, 9, 9], "iscrowd": 0, **a}
            for n, a in enumerate(annotations)
        ],
        "categories": categories or [{"id": 1, "name": "cat"}],
        **more,
    }


def categories_of(path):
    return {c["name"]: c["id"] for c in json.loads(path.read_text())["categories"]}


# --- what is left out -----------------------------------------------------------


@pytest.fixture
def spoiled(tmp_path):
    """Three good annotations, 25 without a mask, and one on an image that is none."""
    bad = [{"image_id": 0, "segmentation": 7} for _ in range(25)]
    good = [{"image_id": i} for i in range(3)]
    return write(tmp_path / "in.json", coco(["0.jpg", "1.jpg", "2.jpg"], [*good, *bad, {"image_id": 9}]))


@pytest.mark.parametrize("to", ["coco", "youtube-vis", "tracks", "sav", "davis"])
def test_what_is_good_is_written_and_the_rest_is_counted_with_its_first_places(spoiled, tmp_path, capsys, to):
    assert run(spoiled, to, tmp_path / "out") == 0
    out, err = capsys.readouterr()
    assert "3 videos, 3 frames, 3 objects, 3 masks; dropped: 25 annotations (segmentation: must be an array, is …), " in out
    assert "1 annotations (image_id: … is not the id of an image)" in out
    lines = err.splitlines()
    assert len(lines) == PLACES_KEPT + 1 and lines[-1] == "malformed: ... and 6 more"
    assert lines[0] == "malformed: annotations[3].segmentation: must be an array, is 7"
    assert sum(len(video.tracks) for video in open_source(tmp_path / "out")) == 3


def test_strict_stops_at_the_first_and_writes_nothing(spoiled, tmp_path, capsys):
    assert run(spoiled, "coco", tmp_path / "out.json", "--strict") == 2
    assert "in.json: annotations[3].segmentation: must be an array, is 7" in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_a_file_without_anything_good_says_what_is_wrong_with_it(tmp_path, capsys):
    source = write(tmp_path / "in.json", coco(["a.jpg"], []) | {"images": [{"id": 1, "file_name": "a.jpg"}, 7]})
    assert run(source, "coco", tmp_path / "out.json") == 2
    err = capsys.readouterr().err
    assert "malformed: images[1]: must be an object, is 7" in err
    assert "gives no video; dropped: 1 images (images: must be an object" in err


def test_what_is_read_twice_is_counted_once(spoiled, tmp_path, capsys):
    assert run(spoiled, "coco", tmp_path / "out.json", "--val", "0.5", "--seed", "3") == 0
    out, err = capsys.readouterr()
    assert "3 videos" in out and "25 annotations (" in out
    assert len(err.splitlines()) == PLACES_KEPT + 1


def test_a_file_that_is_no_json_still_stops(spoiled, tmp_path, capsys):
    spoiled.write_text(spoiled.read_text()[:-20])
    assert run(spoiled, "coco", tmp_path / "out.json") == 2
    assert "is not valid JSON" in capsys.readouterr().err


# --- categories -------------------------------------------------------------------

CONFIG = """<View><Image name="img" value="$image"/>
<PolygonLabels name="poly" toName="img"><Label value="Cat"/><Label value="Dog"/><Label value="Bird"/>
</PolygonLabels></View>"""


def export(path, *labels):
    tasks = []
    for number, label in enumerate(labels, start=1):
        region = {
            "id": f"p{number}", "from_name": "poly", "to_name": "img", "type": "polygonlabels",
            "original_width": 64, "original_height": 48, "image_rotation": 0,
            "value": {"points": [[10, 10], [50, 10], [50, 50]], "polygonlabels": [label]},
        }  # fmt: skip
        tasks.append({
            "id": number, "data": {"image": f"/data/upload/1/{number}.jpg"},
            "annotations": [{"id": number, "result": [region]}],
        })  # fmt: skip
    return write(path, tasks)


@pytest.mark.parametrize("to", ["coco", "youtube-vis"])
def test_ids_are_the_config_s_in_every_export(tmp_path, to):
    (tmp_path / "config.xml").write_text(CONFIG)
    monday = export(tmp_path / "monday.json", "Dog")
    friday = export(tmp_path / "friday.json", "Dog", "Cat")
    for source, options in ((monday, []), (friday, []), (friday, ["--val", "0.5"])):
        out = tmp_path / "out.json"
        assert run(source, to, out, "--label-config", tmp_path / "config.xml", *options) == 0
        paths = [out.with_name(f"out_{side}.json") for side in ("train", "val")] if options else [out]
        for path in paths:
            assert categories_of(path) == {"Cat": 1, "Dog": 2, "Bird": 3}
    # What is asked for wins.
    options = ["--label-config", tmp_path / "config.xml", "--categories", "Dog,Cat"]
    assert run(friday, to, out, *options) == 0
    assert categories_of(out) == {"Dog": 1, "Cat": 2}


@pytest.mark.parametrize(
    ("options", "right"),
    [
        ([], {"person": 1, "cat": 17, "dog": 18}),
        (["--category", "dog=hound"], {"person": 1, "cat": 17, "hound": 18}),
        # Of two that become one, the one that had the name keeps its id; else the first.
        (["--category", "dog=cat"], {"person": 1, "cat": 17}),
        (["--category", "dog=animal", "--category", "cat=animal"], {"person": 1, "animal": 17}),
        (["--category", "cat="], {"person": 1, "dog": 18}),
        (["--category", "dog=", "--default-label", "thing"], {"person": 1, "cat": 17}),
        (["--categories", "dog,cat"], {"dog": 1, "cat": 2}),
    ],
)
@pytest.mark.parametrize("to", ["coco", "youtube-vis"])
def test_renamed_categories_keep_their_ids(tmp_path, to, options, right):
    categories = [{"id": 1, "name": "person"}, {"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}]
    annotations = [{"image_id": 0, "category_id": 18}, {"image_id": 1, "category_id": 17}]
    source = write(tmp_path / "in.json", coco(["a/0.jpg", "a/1.jpg"], annotations, categories))
    assert run(source, to, tmp_path / "out.json", *options) == 0
    assert categories_of(tmp_path / "out.json") == right


def test_categories_and_crowds_survive_tracks_json_and_youtube_vis(tmp_path):
    categories = [
        {"id": 9, "name": "dog", "supercategory": "animal"}, {"id": 4, "name": "cat", "supercategory": ""},
    ]  # fmt: skip
    annotations = [{"image_id": i, "category_id": 4, "track_id": 1, "iscrowd": 1} for i in (0, 1)]
    source = write(tmp_path / "in.json", coco(["a/0.jpg", "a/1.jpg"], annotations, categories))
    for to in ("tracks", "youtube-vis", "tracks", "coco"):
        assert run(source, to, tmp_path / f"{to}.json") == 0
        source = tmp_path / f"{to}.json"
    document = json.loads(source.read_text())
    assert document["categories"] == categories
    assert [(a["category_id"], a["iscrowd"]) for a in document["annotations"]] == [(4, 1), (4, 1)]


@pytest.mark.parametrize("to", ["sav", "davis"])
def test_a_format_that_has_no_crowds_says_so(tmp_path, capsys, to):
    annotations = [{"image_id": 0, "iscrowd": 1}, {"image_id": 1}]
    source = write(tmp_path / "in.json", coco(["a/0.jpg", "a/1.jpg"], annotations))
    assert run(source, to, tmp_path / "out") == 0
    assert "changed: 1 crowds written as objects" in capsys.readouterr().out


def test_other_formats_labels_have_ids_by_the_alphabet_as_before(tmp_path):
    source = write(tmp_path / "in.json", coco(["a/0.jpg"], [{"image_id": 0}]))
    (video,) = open_source(source)
    save_davis(tmp_path / "davis", [video])
    assert run(tmp_path / "davis", "coco", tmp_path / "out.json") == 0
    assert categories_of(tmp_path / "out.json") == {"cat": 1}


# --- names ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "tracked", "written"),
    [
        (["0.jpg", "1.jpg"], False, ["0/0.jpg", "1/1.jpg"]),
        (["0.jpg", "1.jpg"], True, ["in/0.jpg", "in/1.jpg"]),
        (["images/0.jpg", "images/1.jpg"], False, ["images__0/0.jpg", "images__1/1.jpg"]),
        (["v/0.jpg", "v/1.jpg"], True, ["v/0.jpg", "v/1.jpg"]),
        ([r"C:\data\v\0.jpg", r"C:\data\v\1.jpg"], True, ["v/0.jpg", "v/1.jpg"]),
    ],
)
def test_youtube_vis_has_a_folder_a_video_and_images_follow(tmp_path, names, tracked, written):
    annotations = [{"image_id": i, **({"track_id": 1} if tracked else {})} for i in (0, 1)]
    source = write(tmp_path / "in.json", coco(names, annotations))
    on_disk = [name.replace("C:\\data\\", "").replace("\\", "/") for name in names]
    write_frames(tmp_path, ((i, index_picture(i, 64, 48)) for i in (0, 1)), dict(enumerate(on_disk)))
    for options in ([], ["--images"]):
        out = tmp_path / "out" / "set.json"
        assert run(source, "youtube-vis", out, *options) == 0
        videos = json.loads(out.read_text())["videos"]
        assert [name for video in videos for name in video["file_names"]] == written
    for name, old in zip(written, on_disk):
        assert (out.parent / "images" / name).read_bytes() == (tmp_path / old).read_bytes()


@pytest.mark.parametrize("to", ["davis", "sav", "youtube-vis", "coco"])
def test_videos_that_are_named_by_paths_of_windows_get_folders(tmp_path, to):
    document = coco([r"C:\clips\a\0.jpg", r"C:\clips\b\0.jpg"], [{"image_id": 0}, {"image_id": 1}], videos=[
        {"id": 1, "name": r"C:\clips\a.mp4"}, {"id": 2, "name": r"C:\clips\b.mp4"},
    ])  # fmt: skip
    for number, entry in enumerate(document["images"], start=1):
        entry |= {"video_id": number, "frame_index": 0}
    source = write(tmp_path / "in.json", document)
    assert run(source, to, tmp_path / "out") == 0
    assert sum(len(video.tracks) for video in open_source(tmp_path / "out")) == 2
