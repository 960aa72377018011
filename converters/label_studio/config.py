"""The label config: XML -> the tags and controls that SAM 2 can serve.

Labels are the names that appear in results: a label's alias where it has one.
Tag and attribute names are matched without regard to case, as the editor does.
The config is untrusted input: no DOCTYPE, no entities, bounded size and depth.
"""

from __future__ import annotations

import enum
import itertools
import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, TypeVar
from xml.parsers import expat

from converters.types import Category

_MAX_CHARACTERS = 1_000_000
_MAX_DEPTH = 200
_DEFAULT_FRAMERATE = 24.0
_MAX_FRAMERATE = 1000.0  # the editor seeks in steps of 2 ms
_FIELD = re.compile(r"\$(\w+(?:\.\w+|\[\d+\])*)")


class UnsupportedConfigError(ValueError):
    """The config is well-formed, but lacks what SAM 2 needs to serve it."""


class ImageControlKind(enum.StrEnum):
    """Controls on frames shown as images; the value is the tag's name."""

    BRUSH = "BrushLabels"
    BITMASK = "BitmaskLabels"
    POLYGON = "PolygonLabels"
    VECTOR = "VectorLabels"
    RECTANGLE = "RectangleLabels"
    KEY_POINT = "KeyPointLabels"

    @property
    def result_type(self) -> str:
        """The `type` of this control's results, and the key of their labels."""
        return self.value.lower()


@dataclass(frozen=True)
class VideoTag:
    """`<Video>`."""

    name: str
    value: str
    """Template of the media, usually "$video"."""
    framerate: str = ""
    """The attribute as written: a number, "$field", or empty."""


@dataclass(frozen=True)
class ImageTag:
    """`<Image>`: one picture (`value`) or one a frame (`value_list`)."""

    name: str
    value: str | None
    value_list: str | None


@dataclass(frozen=True)
class _Control:
    name: str
    to_names: tuple[str, ...]
    """The tags it works on, in the order written."""

    @property
    def to_name(self) -> str:
        return self.to_names[0]


@dataclass(frozen=True)
class _LabelledControl(_Control):
    labels: tuple[str, ...]
    """In the order written, without repeats."""
    has_dynamic_labels: bool
    """True when labels also come from task data and any name may appear."""

    def check_labels(self, labels: Iterable[str]) -> None:
        """Raises ValueError when a label is not this control's.

        Label Studio accepts unknown labels in predictions without a word.
        """
        unknown = [label for label in labels if label not in self.labels]
        if unknown and not self.has_dynamic_labels:
            raise ValueError(
                f"label {unknown[0]!r} is not in the label config: control "
                f"{self.name!r} has {list(self.labels)}"
            )


@dataclass(frozen=True)
class VideoRectangleControl(_LabelledControl):
    """`<VideoRectangle>` with the labels of all `<Labels>` on the same video."""

    smart: bool


@dataclass(frozen=True)
class VideoVectorControl(_LabelledControl):
    """`<VideoVectorLabels>`, or `<VideoVector>` with the `<Labels>` on its video.

    Both are Label Studio Enterprise's.
    """

    has_own_labels: bool
    """True for VideoVectorLabels."""

    @property
    def result_type(self) -> str:
        """The `type` of this control's results; their labels lie under `labels`."""
        return "videovectorlabels" if self.has_own_labels else "videovector"


@dataclass(frozen=True)
class ImageControl(_LabelledControl):
    """A labels control on `<Image>`."""

    kind: ImageControlKind
    smart: bool


@dataclass(frozen=True)
class TextAreaControl(_Control):
    """`<TextArea>`: a trigger for a request, with options as its text."""

    per_region: bool


_Named = TypeVar("_Named", VideoRectangleControl, VideoVectorControl, ImageControl)


@dataclass(frozen=True)
class LabelConfig:
    """The tags and controls of one label config, each kind in written order."""

    videos: tuple[VideoTag, ...]
    images: tuple[ImageTag, ...]
    video_rectangles: tuple[VideoRectangleControl, ...]
    video_vectors: tuple[VideoVectorControl, ...]
    image_controls: tuple[ImageControl, ...]
    text_areas: tuple[TextAreaControl, ...]
    ignored: tuple[str, ...]
    """Known controls that cannot be served, each with the reason."""
    label_colours: Mapping[str, str] = field(default_factory=dict)
    """Label -> the colour that the config gives it, as written: any CSS colour."""
    categories: tuple[Category, ...] = ()
    """All labels, in the order written, with their ids in data sets: those of their
    `category` attributes, and for labels without one the numbers from 1 that are free."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Those of all controls, without repeats."""
        controls = (*self.video_rectangles, *self.video_vectors, *self.image_controls)
        return tuple(dict.fromkeys(label for control in controls for label in control.labels))

    def image_controls_of(self, kind: ImageControlKind) -> tuple[ImageControl, ...]:
        return tuple(control for control in self.image_controls if control.kind is kind)

    def video_rectangle(self, name: object) -> VideoRectangleControl:
        """Raises ValueError when there is no VideoRectangle of this name."""
        return _find(self.video_rectangles, name, "VideoRectangle")

    def video_vector(self, name: object) -> VideoVectorControl:
        """Raises ValueError when there is no VideoVector(Labels) of this name."""
        return _find(self.video_vectors, name, "VideoVector or VideoVectorLabels")

    def image_control(self, name: object) -> ImageControl:
        """Raises ValueError when there is no labels control on an image of this name."""
        return _find(self.image_controls, name, "labels control on <Image>")

    def video(self, name: str) -> VideoTag:
        """Raises ValueError when there is no Video of this name."""
        for tag in self.videos:
            if tag.name == name:
                return tag
        raise ValueError(f"the label config has no <Video> named {name!r}")


def parse_label_config(xml: str) -> LabelConfig:
    """What of the config SAM 2 can serve.

    Raises UnsupportedConfigError, naming what is lacking, when there is no
    VideoRectangle or VideoVector(Labels) on a Video and no control on an Image
    that can take a mask or box back. Raises ValueError for XML that is malformed, too large, has
    a DOCTYPE, repeats a name, or points toName at nothing.
    """
    elements = list(_parse_xml(xml).iter())
    _check_names(elements)
    videos = tuple(_video(element) for element in _of(elements, "video"))
    images = tuple(_image(element) for element in _of(elements, "image"))
    rectangles, skipped_rectangles = _video_rectangles(elements, videos)
    vectors, skipped_vectors = _video_vectors(elements, videos)
    controls, skipped_controls = _image_controls(elements, images)
    config = LabelConfig(
        videos=videos,
        images=images,
        video_rectangles=rectangles,
        video_vectors=vectors,
        image_controls=controls,
        text_areas=tuple(_text_area(element) for element in _of(elements, "textarea")),
        ignored=skipped_rectangles + skipped_vectors + skipped_controls,
        label_colours=_label_colours(elements),
        categories=_categories(elements),
    )
    _check_servable(config)
    return config


def resolve_framerate(video: VideoTag, task_data: Mapping[str, Any]) -> float:
    """Label Studio frames per second, as the editor takes them.

    A value below 1 is seconds per frame. The editor falls back to 24 when
    the attribute or its task field is missing, zero or no number; so does
    this, since frame numbers must mean what the editor shows. Raises
    ValueError for one that is negative or above 1000, which it cannot play.
    """
    text: Any = video.framerate
    if _FIELD.fullmatch(video.framerate):
        text = _lookup(video.framerate[1:], task_data)
    try:
        framerate = float(str(text).strip()) if "_" not in str(text) else math.nan
    except ValueError:
        framerate = math.nan
    if isinstance(text, bool) or math.isnan(framerate) or framerate == 0:
        return _DEFAULT_FRAMERATE
    frames_per_second = 1 / framerate if framerate < 1 else framerate
    if not 0 < frames_per_second <= _MAX_FRAMERATE:
        raise ValueError(
            f"framerate={text!r} of <Video name={video.name!r}> is {frames_per_second} "
            f"frames a second, must be above 0 and at most {_MAX_FRAMERATE}"
        )
    return frames_per_second


def resolve_value(template: str, task_data: Mapping[str, Any]) -> Any:
    """A tag's value with its `$fields` filled in from the task's data.

    A template that is one field alone gives that field's value whatever its
    type (a list for valueList). Raises ValueError for a field that is missing.
    """

    def value_of(path: str) -> Any:
        value = _lookup(path, task_data)
        if value is None:
            raise ValueError(f"the task's data has no field {path!r} for {template!r}")
        return value

    if _FIELD.fullmatch(template):
        return value_of(template[1:])
    return _FIELD.sub(lambda match: str(value_of(match.group(1))), template)


def _lookup(path: str, task_data: Mapping[str, Any]) -> Any:
    """`a.b[0]` in the task's data; None when there is no such field."""
    value: Any = task_data
    for name, index in re.findall(r"(\w+)|\[(\d+)\]", path):
        if name and isinstance(value, Mapping):
            value = value.get(name)
        elif index and isinstance(value, list) and int(index) < len(value):
            value = value[int(index)]
        else:
            return None
    return value


# --- XML ---------------------------------------------------------------------


def _parse_xml(xml: str) -> ElementTree.Element:
    if not isinstance(xml, str):
        raise ValueError(f"label config of type {type(xml).__name__} must be a str")
    if len(xml) > _MAX_CHARACTERS:
        raise ValueError(
            f"label config has {len(xml)} characters, must have at most {_MAX_CHARACTERS}"
        )
    builder = ElementTree.TreeBuilder()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MAX_DEPTH:
            raise ValueError(f"label config nests deeper than {_MAX_DEPTH} tags")
        lowered = {name.lower(): value for name, value in attributes.items()}
        builder.start(tag.lower(), lowered)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag.lower())

    def refuse_doctype(*_: object) -> None:
        raise ValueError("label config has a DOCTYPE, which is not accepted")

    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = refuse_doctype
    try:
        parser.Parse(xml.encode("utf-8"), True)
    except expat.ExpatError as error:
        raise ValueError(f"label config is not well-formed XML: {error}") from None
    return builder.close()


def _of(elements: Iterable[ElementTree.Element], tag: str) -> list[ElementTree.Element]:
    """The elements of a tag that have a name; others are not annotation tags."""
    return [element for element in elements if element.tag == tag and element.get("name")]


_VECTOR_TAGS = {"videovector": "VideoVector", "videovectorlabels": "VideoVectorLabels"}
_CONTROL_TAGS = {"labels", "videorectangle", "textarea", *_VECTOR_TAGS} | {
    kind.result_type for kind in ImageControlKind
}
_OBJECT_TAGS = {"video", "image"}


def _check_names(elements: list[ElementTree.Element]) -> None:
    """Names are unique, and our controls point at tags that exist."""
    names = [e.get("name") for e in elements if e.get("name") and e.get("toname")]
    names += [e.get("name") for e in elements if e.tag in _OBJECT_TAGS and e.get("name")]
    known = {e.get("name") for e in elements if e.get("name")}
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"label config has more than one tag named {name!r}")
    for element in elements:
        if element.tag in _CONTROL_TAGS and element.get("name"):
            for target in _to_names(element):
                if target not in known:
                    raise ValueError(
                        f"{element.tag} {element.get('name')!r} has "
                        f"toName={target!r}, but no tag has that name"
                    )


def _to_names(element: ElementTree.Element) -> tuple[str, ...]:
    names = [name.strip() for name in element.get("toname", "").split(",")]
    if not all(names):
        raise ValueError(f"{element.tag} {element.get('name')!r} lacks a toName")
    return tuple(names)


def _flag(element: ElementTree.Element, attribute: str) -> bool:
    return element.get(attribute, "").strip().lower() == "true"


# --- tags and controls -------------------------------------------------------


def _video(element: ElementTree.Element) -> VideoTag:
    return VideoTag(
        name=element.attrib["name"],
        value=element.get("value", ""),
        framerate=element.get("framerate", "").strip(),
    )


def _image(element: ElementTree.Element) -> ImageTag:
    return ImageTag(element.attrib["name"], element.get("value"), element.get("valuelist"))


def _text_area(element: ElementTree.Element) -> TextAreaControl:
    return TextAreaControl(
        name=element.attrib["name"],
        to_names=_to_names(element),
        per_region=_flag(element, "perregion"),
    )


def _labels(elements: Iterable[ElementTree.Element]) -> tuple[tuple[str, ...], bool]:
    """The label names within these tags, and whether more come from task data."""
    names: dict[str, None] = {}
    is_dynamic = False
    for element in elements:
        is_dynamic |= element.get("value", "").startswith("$")
        for label in element.iter("label"):
            name = _label_name(label)
            if name:
                names[name] = None
    return tuple(names), is_dynamic


def _label_name(label: ElementTree.Element) -> str | None:
    return label.get("alias") or label.get("value")


def _label_colours(elements: Iterable[ElementTree.Element]) -> dict[str, str]:
    """Where a label has several, the first counts."""
    colours: dict[str, str] = {}
    for element in elements:
        name, colour = _label_name(element), element.get("background")
        if element.tag == "label" and name and colour:
            colours.setdefault(name, colour)
    return colours


def _categories(elements: Iterable[ElementTree.Element]) -> tuple[Category, ...]:
    """Where a label stands in several controls, its first `category` counts.

    One that is no whole number, or another label's, is as good as none.
    """
    given: dict[str, int | None] = {}
    for element in elements:
        name = _label_name(element) if element.tag == "label" else None
        if name and given.setdefault(name, None) is None:
            written = element.get("category", "").strip()
            number = int(written) if re.fullmatch(r"[0-9]{1,15}", written) else None
            given[name] = None if number in given.values() else number
    free = (number for number in itertools.count(1) if number not in given.values())
    return tuple(
        Category(next(free) if number is None else number, name) for name, number in given.items()
    )


def _video_rectangles(
    elements: list[ElementTree.Element], videos: tuple[VideoTag, ...]
) -> tuple[tuple[VideoRectangleControl, ...], tuple[str, ...]]:
    video_names = {video.name for video in videos}
    controls, skipped = [], []
    for element in _of(elements, "videorectangle"):
        name, to_names = element.attrib["name"], _to_names(element)
        if not video_names.issuperset(to_names):
            skipped.append(f"VideoRectangle {name!r} is not on a <Video>")
            continue
        labels, is_dynamic = _labels(_labels_on(elements, to_names))
        controls.append(
            VideoRectangleControl(name, to_names, labels, is_dynamic, _flag(element, "smart"))
        )
    return tuple(controls), tuple(skipped)


def _video_vectors(
    elements: list[ElementTree.Element], videos: tuple[VideoTag, ...]
) -> tuple[tuple[VideoVectorControl, ...], tuple[str, ...]]:
    video_names = {video.name for video in videos}
    controls, skipped = [], []
    for element in elements:
        if element.tag not in _VECTOR_TAGS or not element.get("name"):
            continue
        name, to_names = element.attrib["name"], _to_names(element)
        if not video_names.issuperset(to_names):
            skipped.append(f"{_VECTOR_TAGS[element.tag]} {name!r} is not on a <Video>")
            continue
        has_own = element.tag == "videovectorlabels"
        labels, is_dynamic = _labels([element] if has_own else _labels_on(elements, to_names))
        controls.append(VideoVectorControl(name, to_names, labels, is_dynamic, has_own))
    return tuple(controls), tuple(skipped)


def _labels_on(
    elements: list[ElementTree.Element], to_names: tuple[str, ...]
) -> list[ElementTree.Element]:
    """The `<Labels>` that share a tag with a control that has none of its own."""
    return [e for e in _of(elements, "labels") if set(_to_names(e)) & set(to_names)]


def _image_controls(
    elements: list[ElementTree.Element], images: tuple[ImageTag, ...]
) -> tuple[tuple[ImageControl, ...], tuple[str, ...]]:
    image_names = {image.name for image in images}
    kinds = {kind.result_type: kind for kind in ImageControlKind}
    controls, skipped = [], []
    for element in elements:
        kind = kinds.get(element.tag)
        if kind is None or not element.get("name"):
            continue
        name, to_names = element.attrib["name"], _to_names(element)
        if not image_names.issuperset(to_names):
            skipped.append(
                f"{kind} {name!r} is not on an <Image>; Label Studio's editor "
                "cannot draw it on a <Video>"
            )
            continue
        labels, is_dynamic = _labels([element])
        controls.append(
            ImageControl(name, to_names, labels, is_dynamic, kind, _flag(element, "smart"))
        )
    return tuple(controls), tuple(skipped)


def _check_servable(config: LabelConfig) -> None:
    if config.video_rectangles or config.video_vectors or any(
        control.kind is not ImageControlKind.KEY_POINT for control in config.image_controls
    ):
        return
    reasons = list(config.ignored)
    if config.images:
        reasons.append(
            "its <Image> lacks a control for results: BrushLabels, BitmaskLabels, "
            "PolygonLabels, VectorLabels or RectangleLabels"
        )
    elif config.videos:
        reasons.append("its <Video> lacks a <VideoRectangle>")
    else:
        reasons.append(
            "it lacks a <Video> with <VideoRectangle> or an <Image> with BrushLabels "
            "or BitmaskLabels"
        )
    raise UnsupportedConfigError("label config cannot be served: " + "; ".join(reasons))


def _find(controls: tuple[_Named, ...], name: object, what: str) -> _Named:
    for control in controls:
        if control.name == name:
            return control
    raise ValueError(
        f"the label config has no {what} named {name!r}; it has "
        f"{[control.name for control in controls]}"
    )
