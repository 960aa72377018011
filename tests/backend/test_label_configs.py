"""The label configs that projects are made with."""

import pytest

from backend.label_configs import ConfigKind, has_export_trap, kind_of, label_config, media_videos
from converters.label_studio.config import parse_label_config

LABELS = ["Car", 'Dog & "cat" <3']
PREVIEW = "http://b/preview.mp4?src=$video&key=1"
PANEL = "http://b/panel?video=$video#key=1"


def config(kind, **options):
    preview = PREVIEW if kind == ConfigKind.VIDEO_PREVIEW else None
    panel = PANEL if kind == ConfigKind.VIDEO_PANEL else None
    return parse_label_config(
        label_config(kind, LABELS, preview_url=preview, panel_url=panel, **options)
    )


@pytest.mark.parametrize("kind", list(ConfigKind))
@pytest.mark.parametrize("masks", ["BrushLabels", "BitmaskLabels"])
def test_every_config_is_one_that_the_service_serves_in_full(kind, masks):
    parsed = config(kind, masks=masks)
    assert parsed.ignored == () and not has_export_trap(parsed)
    controls = [*parsed.video_rectangles, *parsed.image_controls]
    assert all(list(control.labels) == LABELS for control in controls)
    kinds = {control.kind.value for control in parsed.image_controls}
    if kind.has_frames:
        assert kinds == {masks, "KeyPointLabels", "RectangleLabels"}
    if kind.has_video:
        (text,) = parsed.text_areas
        assert (text.name, text.per_region) == ("sam2", False)
        assert [tag.framerate for tag in media_videos(parsed)] == ["$fps"]


def test_the_kind_is_told_by_a_config():
    for kind in ("video", "frames", "both"):
        assert kind_of(config(ConfigKind(kind))) == kind


def test_the_preview_is_a_second_video_in_step_with_the_first():
    xml = label_config("video-preview", ["A"], preview_url=PREVIEW)
    assert xml.count('sync="masks"') == 2 and "src=$video&amp;key=1" in xml
    assert [tag.name for tag in media_videos(parse_label_config(xml))] == ["video"]


def test_the_panel_is_a_frame_beside_the_video():
    xml = label_config("video-panel", ["A"], panel_url=PANEL)
    assert f'<Markdown><![CDATA[<iframe src="{PANEL}" ' in xml
    assert [tag.name for tag in parse_label_config(xml).videos] == ["video"]


def test_the_menu_is_there_when_asked_for():
    assert "<Choices" not in label_config("video", ["A"])
    xml = label_config("both", ["A"], has_menu=True)
    assert '<Choices name="sam2_menu" toName="video"' in xml and '<Choice value="backward"/>' in xml


def test_key_points_without_rectangles_on_frames_are_a_trap():
    xml = label_config("frames", ["A"]).replace("RectangleLabels", "PolygonLabels")
    assert has_export_trap(parse_label_config(xml))
    assert not has_export_trap(parse_label_config(xml.replace("valueList", "value")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("poster", ["A"], {}), "poster"),
        (("video", [], {}), "1 to 200 names"),
        (("video", "Car", {}), "must be a list"),
        (("video", ["A", "A"], {}), "more than once"),
        (("video", [" A"], {}), "spaces"),
        (("video", ["A\n"], {}), "must be text"),
        (("video", ["A"], {"masks": "Polygon"}), "Polygon"),
        (("frames", ["A"], {"has_menu": True}), "has_menu"),
        (("video-preview", ["A"], {}), "video-preview needs one"),
        (("video", ["A"], {"preview_url": "http://x"}), "others none"),
        (("video-panel", ["A"], {}), "video-panel needs one"),
        (("video", ["A"], {"panel_url": "http://x"}), "others none"),
        (("video-panel", ["A"], {"panel_url": 'http://x" onload="y'}), "panel_url"),
        (("video-panel", ["A"], {"panel_url": "http://x]]></Markdown>"}), "panel_url"),
        (("video-panel", ["A"], {"panel_url": "javascript:x"}), "panel_url"),
    ],
)
def test_what_makes_no_config_is_refused(arguments, message):
    kind, labels, options = arguments
    with pytest.raises(ValueError, match=message):
        label_config(kind, labels, **options)
