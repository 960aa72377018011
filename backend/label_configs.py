"""The label configs that `project create` offers.

Frames always come with RectangleLabels: without them, and with KeyPointLabels,
every export of the project is an error 500 (PROTOCOL section 13).
"""

from __future__ import annotations

import enum
import re
from typing import Sequence
from xml.sax.saxutils import quoteattr

from backend.preview.colours import PALETTE
from converters.label_studio.config import ImageControlKind, LabelConfig, VideoTag

VIDEO_FIELD = "video"
FRAMES_FIELD = "frames"
FPS_FIELD = "fps"
COMMANDS_NAME = "sam2"
"""The global text area whose text is a command."""
MENU_NAME = "sam2_menu"
"""The optional menu beside it."""

_MENU_CHOICES = ("forward", "backward", "both")
_MAX_LABELS = 200
_PANEL_HEIGHT = 640
_LEAST_VIDEO_WIDTH = 660
_FIELD = re.compile(r"\$\w+")
_PAGE_URL = re.compile(r"https?://[^\s\"'<>\\]+")


class ConfigKind(enum.StrEnum):
    """What a project's tasks show."""

    VIDEO = "video"
    """The video, boxes on its timeline."""
    FRAMES = "frames"
    """Its frames as images: clicks and boxes in, masks back."""
    BOTH = "both"
    """One above the other."""
    VIDEO_PREVIEW = "video-preview"
    """The video beside a second one with the masks drawn over it."""
    VIDEO_PANEL = "video-panel"
    """The video beside the panel, where people click and see masks."""

    @property
    def has_video(self) -> bool:
        return self is not ConfigKind.FRAMES

    @property
    def has_frames(self) -> bool:
        return self in (ConfigKind.FRAMES, ConfigKind.BOTH)


class MaskControl(enum.StrEnum):
    """What masks on frames are kept in."""

    BRUSH = "BrushLabels"
    BITMASK = "BitmaskLabels"


def label_config(
    kind: ConfigKind | str,
    labels: Sequence[str],
    *,
    masks: MaskControl | str = MaskControl.BRUSH,
    has_menu: bool = False,
    preview_url: str | None = None,
    panel_url: str | None = None,
) -> str:
    """The XML of a config.

    Args:
        labels: at least one, each once.
        masks: the control for masks on frames.
        has_menu: a menu for the direction beside the text area.
        preview_url: of the video with masks, for VIDEO_PREVIEW alone; task fields
            as `$video` are filled in by the editor.
        panel_url: the same of the panel, for VIDEO_PANEL alone.

    Raises:
        ValueError: an unknown kind, labels that are none, or a URL that is missing,
            has no use, or has characters that cannot stand in the page.
    """
    kind, masks = ConfigKind(kind), MaskControl(masks)
    _check_labels(labels)
    for name, url, owner in (
        ("preview_url", preview_url, ConfigKind.VIDEO_PREVIEW),
        ("panel_url", panel_url, ConfigKind.VIDEO_PANEL),
    ):
        if (kind is owner) != (url is not None):
            raise ValueError(f"{name}={url!r} for config {kind}: {owner} needs one, others none")
    if panel_url is not None and not _PAGE_URL.fullmatch(panel_url):
        raise ValueError(f"panel_url={panel_url!r} must be http(s)://... without quotes or spaces")
    if has_menu and not kind.has_video:
        raise ValueError(f"has_menu goes with a video, not with config {kind}")
    lines = ["<View>"]
    if kind.has_video:
        lines += _video(labels, preview_url, panel_url, has_menu)
    if kind.has_frames:
        lines += _frames(labels, masks)
    return "\n".join([*lines, "</View>"])


def kind_of(config: LabelConfig) -> ConfigKind:
    """What tasks of a project with this config must show. Any config, not only ours."""
    if not config.videos:
        return ConfigKind.FRAMES
    return ConfigKind.BOTH if config.images else ConfigKind.VIDEO


def media_videos(config: LabelConfig) -> tuple[VideoTag, ...]:
    """The `<Video>` tags that show a field of the task, and not a video of ours made from it."""
    return tuple(tag for tag in config.videos if _FIELD.fullmatch(tag.value))


def has_export_trap(config: LabelConfig) -> bool:
    """Whether every export that Label Studio makes of such a project fails (error 500)."""
    kinds = {control.kind for control in config.image_controls}
    is_list = any(image.value_list for image in config.images)
    points, rectangles = ImageControlKind.KEY_POINT, ImageControlKind.RECTANGLE
    return is_list and points in kinds and rectangles not in kinds


def _check_labels(labels: Sequence[str]) -> None:
    if isinstance(labels, str) or not 1 <= len(labels) <= _MAX_LABELS:
        raise ValueError(f"labels={labels!r} must be a list of 1 to {_MAX_LABELS} names")
    for label in labels:
        if not label.strip() or label != label.strip() or not label.isprintable():
            raise ValueError(f"label {label!r} must be text, without spaces around it")
        if labels.count(label) > 1:
            raise ValueError(f"label {label!r} is there more than once")


def _video(
    labels: Sequence[str], preview_url: str | None, panel_url: str | None, has_menu: bool
) -> list[str]:
    video = f'<Video name="video" value="${VIDEO_FIELD}" framerate="${FPS_FIELD}"'
    lines = _labels("Labels", "labels", "video", labels)
    if panel_url is not None:
        frame = f'<iframe src="{panel_url}" title="SAM 2" width="100%" height="{_PANEL_HEIGHT}">'
        # Below the editor's least width for a video, its controls cover what is beside it.
        columns = f"repeat(auto-fit,minmax(min({_LEAST_VIDEO_WIDTH}px,100%),1fr))"
        lines += [
            f'  <View style="display:grid;grid-template-columns:{columns}">',
            f"    <Markdown><![CDATA[{frame}</iframe>]]></Markdown>",
            f'    {video} height="480"/>',
            "  </View>",
        ]
    elif preview_url is None:
        lines.append(f'  {video} height="480"/>')
    else:
        # A flex row of two videos breaks drawing, a grid does not.
        lines += [
            '  <View style="display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr)">',
            f'    {video} height="480" sync="masks"/>',
            f'    <Video name="preview" value={quoteattr(preview_url)} '
            f'framerate="${FPS_FIELD}" height="480" sync="masks"/>',
            "  </View>",
        ]
    lines.append('  <VideoRectangle name="box" toName="video" smart="true"/>')
    if has_menu:
        lines += [
            f'  <Choices name="{MENU_NAME}" toName="video" choice="single" showInline="true">',
            *(f'    <Choice value="{choice}"/>' for choice in _MENU_CHOICES),
            "  </Choices>",
        ]
    lines.append(
        f'  <TextArea name="{COMMANDS_NAME}" toName="video" rows="1" editable="true" '
        'placeholder="track, track 100, back, both, to 250, help - then Enter"/>'
    )
    return lines


def _frames(labels: Sequence[str], masks: MaskControl) -> list[str]:
    # No brush stroke calls the model; this hides the tool that looks as if it did.
    return [
        *_labels(masks.value, "mask", "frame", labels, 'smart="false"'),
        *_labels("KeyPointLabels", "point", "frame", labels, 'smart="true"'),
        *_labels("RectangleLabels", "rectangle", "frame", labels, 'smart="true"'),
        f'  <Image name="frame" valueList="${FRAMES_FIELD}" maxWidth="100%"/>',
    ]


def _labels(tag: str, name: str, to_name: str, labels: Sequence[str], more: str = "") -> list[str]:
    head = f'  <{tag} name="{name}" toName="{to_name}" {more}'.rstrip() + ">"
    items = [
        f'    <Label value={quoteattr(label)} background="{_colour(number)}"/>'
        for number, label in enumerate(labels)
    ]
    return [head, *items, f"  </{tag}>"]


def _colour(number: int) -> str:
    return "#{:02X}{:02X}{:02X}".format(*PALETTE[number % len(PALETTE)])
