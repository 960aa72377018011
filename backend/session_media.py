"""Which video a session is about: a task's, by its label config, or a reference alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping, Sequence

from backend.errors import BadRequest, UnusableTask
from backend.link_keys import STAND_ALONE
from backend.media import MediaStore
from backend.requests import fingerprint
from converters.label_studio.config import (
    ImageTag,
    LabelConfig,
    VideoTag,
    parse_label_config,
    resolve_framerate,
    resolve_value,
)


@dataclass(frozen=True, kw_only=True)
class SessionOrigin:
    """Where a session's frames come from, and where its result may go."""

    reference: str | tuple[str, ...]
    """A video, or the images of its frames, as task data names them."""
    task_id: int | None = None
    project_id: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    label_config: str | None = None
    tag_name: str | None = None
    """The `<Video>` or `<Image>` of the config that shows it."""
    annotation_id: int | None = None
    """The annotation whose regions the session began with."""

    @classmethod
    def of_task(
        cls, task: Mapping[str, Any], label_config: str, *, tag_name: object = None
    ) -> SessionOrigin:
        """The media of the tag of that name; None: of the first video, else of the images.

        Raises BadRequest, UnusableTask, and ValueError for a config that cannot be
        served or a field that the task lacks.
        """
        data = task.get("data")
        if not isinstance(data, Mapping):
            raise BadRequest(f"task {task.get('id')!r:.80}: data must be an object")
        tag = _tag(parse_label_config(label_config), tag_name)
        return cls(
            reference=_reference(tag, data),
            task_id=_whole(task.get("id")),
            project_id=_whole(task.get("project")),
            data=data,
            label_config=label_config,
            tag_name=tag.name,
        )

    @property
    def config(self) -> LabelConfig | None:
        return None if self.label_config is None else parse_label_config(self.label_config)

    @property
    def framerate(self) -> float:
        """Label Studio frames per second. Raises ValueError without a `<Video>`."""
        config = self.config
        if config is None or self.tag_name is None:
            raise ValueError("the session has no label config with a <Video>")
        return resolve_framerate(config.video(self.tag_name), self.data)

    @property
    def is_video(self) -> bool:
        return isinstance(self.reference, str)

    def belongs_to(self, project_id: int | None) -> bool:
        """Whether it is on a task of that project; None: of any, or of none.
        `link_keys.STAND_ALONE`: on no task."""
        if project_id is None:
            return True
        if project_id == STAND_ALONE:
            return self.task_id is None and self.project_id is None
        return self.project_id == project_id

    @property
    def key(self) -> str:
        """The same for one task and tag."""
        return fingerprint([self.task_id, self.tag_name, self.reference])

    def files(self, media: MediaStore) -> Path | Sequence[Path]:
        """Finds or downloads them. Raises ServiceError."""
        of = {"task_id": self.task_id, "project_id": self.project_id}
        if isinstance(self.reference, str):
            return media.video_file(self.reference, **of)
        return media.frame_files(list(self.reference), **of)

    def to_json(self) -> dict[str, Any]:
        """Reads back as `from_json`."""
        is_video = isinstance(self.reference, str)
        return {
            "reference": self.reference if is_video else list(self.reference),
            "task_id": self.task_id,
            "project_id": self.project_id,
            "data": dict(self.data),
            "label_config": self.label_config,
            "tag_name": self.tag_name,
            "annotation_id": self.annotation_id,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> SessionOrigin:
        reference = stored["reference"]
        reference = reference if isinstance(reference, str) else tuple(reference)
        return cls(**{**stored, "reference": reference})


def _tag(config: LabelConfig, name: object) -> VideoTag | ImageTag:
    tags: list[VideoTag | ImageTag] = [*config.videos, *config.images]
    if not tags:
        raise UnusableTask("the label config has no <Video> or <Image>")
    if name is None:
        return tags[0]
    for tag in tags:
        if tag.name == name:
            return tag
    raise BadRequest(f"to_name {name!r:.80} must be one of {[tag.name for tag in tags]}")


def _reference(tag: VideoTag | ImageTag, data: Mapping[str, Any]) -> str | tuple[str, ...]:
    if isinstance(tag, VideoTag):
        value = resolve_value(tag.value, data)
        if not isinstance(value, str):
            raise UnusableTask(f"the video {value!r:.80} must be a path or a URL")
        return value
    values = resolve_value(tag.value_list or tag.value or "", data)
    values = values if tag.value_list is not None else [values]
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise UnusableTask(f"the images {values!r:.80} must be a list of paths or URLs")
    return tuple(values)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
