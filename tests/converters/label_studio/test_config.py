import math

import pytest

from converters.label_studio.config import (
    ImageControlKind,
    UnsupportedConfigError,
    VideoTag,
    parse_label_config,
    resolve_framerate,
    resolve_value,
)
from tests.converters.cases import DATA


def captured(name):
    return (DATA / "configs" / f"config_{name}.xml").read_text("utf-8")


def test_a_video_with_boxes():
    config = parse_label_config(captured("video_rectangle"))

    (video,) = config.videos
    assert (video.name, video.value, video.framerate) == ("video", "$video", "25")
    (rectangle,) = config.video_rectangles
    assert (rectangle.name, rectangle.to_name, rectangle.smart) == ("box", "video", True)
    assert rectangle.labels == ("Car", "Dog")
    assert config.images == () and config.ignored == ()


def test_frames_as_images_with_brush_key_points_and_rectangles():
    config = parse_label_config(captured("c_image_valuelist_brush"))

    assert config.images[0].value_list == "$frames" and config.images[0].value is None
    assert [(c.name, c.kind, c.smart) for c in config.image_controls] == [
        ("brush", ImageControlKind.BRUSH, False),
        ("kp", ImageControlKind.KEY_POINT, True),
        ("rect", ImageControlKind.RECTANGLE, True),
    ]
    assert config.image_control("kp").labels == ("Car", "Dog")


def test_video_and_frames_in_one_config():
    config = parse_label_config(captured("e_video_plus_image"))

    assert [c.name for c in config.video_rectangles] == ["box"]
    assert [c.name for c in config.image_controls] == ["brush", "kp"]
    # Labels of the images are not those of the video's boxes.
    assert config.video_rectangle("box").labels == ("Car", "Dog")


def test_bitmask_frames_and_text_areas():
    bitmask = parse_label_config(captured("c2_image_valuelist_bitmask"))
    assert bitmask.image_controls_of(ImageControlKind.BITMASK)[0].name == "bm"

    config = parse_label_config(captured("g_video_textarea_perregion"))
    assert [(t.name, t.per_region) for t in config.text_areas] == [("cmd", True)]
    glob = captured("g_video_textarea_perregion").replace('perRegion="true"', "")
    assert parse_label_config(glob).text_areas[0].per_region is False


@pytest.mark.parametrize(
    ("name", "has_own_labels", "result_type"),
    [("d1_videovector", False, "videovector"), ("d2_videovectorlabels", True, "videovectorlabels")],
)
def test_video_vectors_of_enterprise(name, has_own_labels, result_type):
    (vector,) = parse_label_config(captured(name)).video_vectors
    assert (vector.name, vector.to_name, vector.labels) == ("vec", "video", ("Car",))
    assert (vector.has_own_labels, vector.result_type) == (has_own_labels, result_type)
    with pytest.raises(ValueError, match="'Dog' is not in the label config"):
        vector.check_labels(["Dog"])


def test_tags_that_we_do_not_know_are_passed_over():
    config = parse_label_config(captured("f_videorectangle_timeline"))
    assert config.video_rectangle("box").labels == ("Car",)


def test_every_image_control_and_several_of_a_kind():
    tags = "".join(
        f'<{kind} name="{kind}{n}" toName="img"><Label value="A"/></{kind}>'
        for kind in ImageControlKind
        for n in (1, 2)
    )
    config = parse_label_config(f'<View><Image name="img" value="$image"/>{tags}</View>')
    assert len(config.image_controls) == 2 * len(ImageControlKind)
    assert config.images[0].value == "$image"


def test_labels_are_the_names_that_results_hold():
    config = parse_label_config(
        """<View>
        <Labels name="a" toName="v"><View><Label value="Car" alias="car"/></View></Labels>
        <Labels name="b" toName="v"><Label value="Hund ü 犬"/><Label value="car"/></Labels>
        <Labels name="c" toName="other"><Label value="Elsewhere"/></Labels>
        <Video name="v" value="$v"/><Video name="other" value="$o"/>
        <VideoRectangle name="r" toName="v"/></View>"""
    )
    control = config.video_rectangles[0]
    assert control.labels == ("car", "Hund ü 犬")
    control.check_labels(["Hund ü 犬", "car"])
    with pytest.raises(ValueError, match="'Elsewhere' is not in the label config"):
        control.check_labels(["Elsewhere"])


def test_categories_are_all_labels_in_the_order_written_with_ids_of_their_own():
    config = parse_label_config(
        """<View><Image name="i" value="$i"/>
        <RectangleLabels name="r" toName="i"><Label value="Cat"/><Label value="Dog" category="3"/>
          <Label value="x" alias="Bird"/><Label value="Fish" category="first"/></RectangleLabels>
        <BrushLabels name="b" toName="i"><Label value="Dog" category="5"/>
          <Label value="Cat" category="7"/><Label value="Cow" category="3"/></BrushLabels></View>"""
    )
    assert [(category.name, category.id) for category in config.categories] == [
        ("Cat", 7), ("Dog", 3), ("Bird", 1), ("Fish", 2), ("Cow", 4),
    ]  # fmt: skip


def test_labels_from_task_data_are_not_checked():
    config = parse_label_config(
        '<View><Image name="i" value="$i"/>'
        '<BrushLabels name="b" toName="i" value="$classes"/></View>'
    )
    config.image_control("b").check_labels(["anything"])


def test_names_are_matched_without_regard_to_case():
    config = parse_label_config(
        '<view><video Name="v" Value="$v" frameRate="12"/><LABELS name="l" TONAME="v">'
        '<label VALUE="A"/></LABELS><videorectangle name="r" toname="v"/></view>'
    )
    assert config.videos[0].framerate == "12"
    assert config.video_rectangles[0].labels == ("A",)


@pytest.mark.parametrize(
    ("xml", "lacking"),
    [
        # A brush on a video: the editor shows a banner and no video.
        (captured("a_video_brush"), "BrushLabels 'brush' is not on an <Image>.*VideoRectangle"),
        (captured("b_video_kp_rectlabels"), "KeyPointLabels 'kp' is not on an <Image>"),
        ('<View><Video name="v" value="$v"/></View>', "lacks a <VideoRectangle>"),
        (
            '<View><Audio name="a" value="$a"/><VideoVector name="r" toName="a"/></View>',
            "VideoVector 'r' is not on a <Video>",
        ),
        (captured("d3_bitmask_video"), "BitmaskLabels 'bm' is not on an <Image>"),
        # Key points alone have nothing to put an answer in.
        (
            '<View><Image name="i" value="$i"/><KeyPointLabels name="k" toName="i">'
            '<Label value="A"/></KeyPointLabels></View>',
            "KeyPointLabels 'k' marks objects, but can take no answer; .*lacks a control for "
            "results: BrushLabels.*add for example <BrushLabels name=\"brush\" toName=\"i\">",
        ),
        # Ellipses are nothing of ours.
        (
            '<View><Image name="i" value="$i"/><EllipseLabels name="e" toName="i">'
            '<Label value="A"/></EllipseLabels></View>',
            "EllipseLabels 'e' is not read, as an ellipse is neither a prompt nor a mask here: "
            "mark objects with RectangleLabels or KeyPointLabels; .*add for example <BrushLabels",
        ),
        (
            '<View><Video name="v" value="$v"/><Ellipse name="e" toName="v"/></View>',
            "Ellipse 'e' is not read.*add <VideoRectangle name=\"box\" toName=\"v\"/>",
        ),
        (
            '<View><Image name="i" value="$i"/><KeyPoint name="k" toName="i"/>'
            '<Labels name="l" toName="i"><Label value="A"/></Labels></View>',
            "KeyPoint 'k' is not read, as it has no labels of its own: use KeyPointLabels",
        ),
        ('<View><Text name="t" value="$t"/></View>', "lacks a <Video> with <VideoRectangle>"),
        # A box on something that is no video.
        (
            '<View><Audio name="a" value="$a"/><VideoRectangle name="r" toName="a"/></View>',
            "VideoRectangle 'r' is not on a <Video>",
        ),
    ],
)
def test_a_config_that_cannot_be_served_says_what_is_lacking(xml, lacking):
    with pytest.raises(UnsupportedConfigError, match=lacking):
        parse_label_config(xml)


def test_what_cannot_be_served_beside_what_can_is_named():
    config = parse_label_config(captured("a2_video_rect_brush"))
    assert [c.name for c in config.video_rectangles] == ["box"]
    assert "BrushLabels 'brush' is not on an <Image>" in config.ignored[0]


BOMB = '<!DOCTYPE v [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><View>&b;</View>'
VIDEO = '<Video name="v" value="$v"/><VideoRectangle name="r" toName="v"/>'


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (BOMB, "DOCTYPE"),
        ('<!DOCTYPE View SYSTEM "file:///etc/passwd"><View/>', "DOCTYPE"),
        ("<View>&undefined;</View>", "not well-formed"),
        ("<View><Video></View>", "not well-formed"),
        ("", "not well-formed"),
        (None, "type NoneType must be a str"),
        ("<View>" + " " * 1_000_001 + "</View>", "at most 1000000"),
        ("<a>" * 300 + "</a>" * 300, "deeper than 200"),
        (f'<View>{VIDEO}<Labels name="v" toName="v"/></View>', "more than one tag named 'v'"),
        (f'<View>{VIDEO}<Labels name="l" toName="gone"/></View>', "no tag has that name"),
        (f'<View>{VIDEO}<Labels name="l"/></View>', "lacks a toName"),
    ],
)
def test_malformed_configs_are_refused(xml, message):
    with pytest.raises(ValueError, match=message):
        parse_label_config(xml)


@pytest.mark.parametrize(
    ("attribute", "data", "expected"),
    [
        ("25", {}, 25.0),
        (" 29.97 ", {}, 29.97),
        # Seconds a frame.
        ("0.04", {}, 25.0),
        ("$fps", {"fps": 30}, 30.0),
        ("$fps", {"fps": "12.5"}, 12.5),
        ("$fps", {"fps": 0.5}, 2.0),
        ("$video.fps", {"video": {"fps": 50}}, 50.0),
        ("$rates[1]", {"rates": [1, 2]}, 2.0),
        # The editor's default: not given, missing, or no number.
        ("", {}, 24.0),
        ("$fps", {}, 24.0),
        ("$fps", {"fps": None}, 24.0),
        ("$fps", {"fps": "fast"}, 24.0),
        ("0", {}, 24.0),
        ("nan", {}, 24.0),
    ],
)
def test_the_framerate_is_what_the_editor_takes(attribute, data, expected):
    video = VideoTag("v", "$v", attribute)
    assert resolve_framerate(video, data) == pytest.approx(expected)


@pytest.mark.parametrize("attribute", ["-25", "inf", "1e9", "1e-9"])
def test_a_framerate_that_no_editor_can_play_is_refused(attribute):
    with pytest.raises(ValueError, match="must be above 0 and at most"):
        resolve_framerate(VideoTag("v", "$v", attribute), {})
    assert math.isfinite(resolve_framerate(VideoTag("v", "$v", "1000"), {}))


def test_values_come_from_task_data():
    data = {"video": "/data/upload/1/a.mp4", "frames": ["a.jpg", "b.jpg"], "n": 3}
    assert resolve_value("$video", data) == "/data/upload/1/a.mp4"
    assert resolve_value("$frames", data) == ["a.jpg", "b.jpg"]
    assert resolve_value("http://host/x?src=$video&n=$n", data) == (
        "http://host/x?src=/data/upload/1/a.mp4&n=3"
    )
    with pytest.raises(ValueError, match="no field 'gone'"):
        resolve_value("$gone", data)


@pytest.mark.parametrize(
    ("label", "name"),
    # One that is a label is itself, whatever it is the value of.
    [("Automobile", "Car"), ("Car", "Car"), ("Dog", "Dog"), ("Twice", "Twice"), ("Cat", "Cat")],
)
def test_a_value_from_before_an_alias_is_known_by_the_alias(label, name):
    labels = """<Label value="Automobile" alias="Car"/><Label value="Dog" alias="Hound"/>
        <Label value="Dog"/><Label value="Twice" alias="a"/><Label value="Twice" alias="b"/>"""
    config = parse_label_config(
        f'<View><Video name="v" value="$v"/><Labels name="l" toName="v">{labels}</Labels>'
        f'<VideoRectangle name="box" toName="v"/><VideoVector name="vec" toName="v"/>'
        f'<Image name="i" value="$i"/><BrushLabels name="b" toName="i">{labels}</BrushLabels></View>'
    )
    controls = (*config.video_rectangles, *config.video_vectors, *config.image_controls)
    assert [control.alias_of(label) for control in controls] == [name] * 3
    assert all(control.labels == ("Car", "Hound", "Dog", "a", "b") for control in controls)


def controls(count, tag="VideoRectangle"):
    return "".join(f'<{tag} name="c{number}" toName="v"/>' for number in range(count))


def labels(count):
    inside = "".join(f'<Label value="{number}"/>' for number in range(count))
    return f'<Labels name="l" toName="v">{inside}</Labels>'


@pytest.mark.parametrize(
    ("inside", "message"),
    [
        (controls(201), "201 controls, may have 200"),
        (controls(201, "TextArea"), "201 controls"),
        (labels(1) * 201, "201 controls"),
        (labels(10_001), "10001 labels, may have 10000"),
    ],
)
def test_more_controls_or_labels_than_each_may_have_of_the_other_are_refused(inside, message):
    with pytest.raises(ValueError, match=message):
        parse_label_config(f'<View><Video name="v" value="$v"/>{inside}</View>')


def test_a_config_of_all_that_may_be_is_read():
    xml = f'<View><Video name="v" value="$v"/>{labels(9_999)}{controls(199)}</View>'
    config = parse_label_config(xml)
    assert len(config.video_rectangles) == 199
    assert all(len(control.labels) == 9_999 for control in config.video_rectangles)


def test_repeated_names_are_found_in_one_go():
    """20,000 tags, which had been compared with each other."""
    tags = "".join(f'<Text name="t{number}" toName="t{number}"/>' for number in range(20_000))
    with pytest.raises(ValueError, match="more than one tag named 't7'"):
        parse_label_config(f'<View>{tags}<Text name="t7" toName="t7"/></View>')
