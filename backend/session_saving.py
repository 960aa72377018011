"""A session -> Label Studio: as an annotation, a draft or a prediction of its task.

What this session stored before is changed, not doubled, also where the answer to
the first try was lost: its regions say whose they are (`prompts.STAMP`).
"""

from __future__ import annotations

import enum
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Mapping, Sequence

from backend.errors import BadRequest, Conflict, ServiceError, UnusableTask
from backend.prompts import STAMP
from backend.propagation import track_scores
from backend.requests import fingerprint
from backend.session_results import SessionRegions, regions_of
from backend.session_values import Saved
from converters.label_studio.config import parse_label_config
from converters.label_studio.outgoing import check_results
from converters.label_studio.results import image_kind_of

if TYPE_CHECKING:
    from backend.label_studio_client import LabelStudioClient
    from backend.service import TrackingService
    from backend.sessions import Session

logger = logging.getLogger(__name__)

_VIDEO_TYPES = ("videorectangle", "videovector", "videovectorlabels")
_RELATION = "relation"

Json = dict[str, Any]
Item = Mapping[str, Any]
"""An annotation, draft or prediction as Label Studio has it."""


class SaveAs(enum.StrEnum):
    """What a session becomes in Label Studio."""

    ANNOTATION = "annotation"
    DRAFT = "draft"
    PREDICTION = "prediction"


class TaskChanged(Conflict):
    """Somebody has worked on the task in Label Studio meanwhile."""

    name = "task changed"


class NothingToSave(Conflict):
    """No object has a mask that Label Studio could be given."""

    name = "nothing to save"


@dataclass(frozen=True)
class SaveOrder:
    """The body of a request to save."""

    save_as: SaveAs
    version: str | None
    """The task's, as the person saw it; None: whatever it is."""
    overwrite: bool
    """Also when the task has another version now."""

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> SaveOrder:
        """Raises BadRequest."""
        save_as, version, overwrite = body.get("as"), body.get("version"), body.get("overwrite")
        if save_as not in list(SaveAs):
            raise BadRequest(f"as {save_as!r:.80} must be one of {[str(way) for way in SaveAs]}")
        if not isinstance(version, (str, type(None))):
            raise BadRequest(f"version {version!r:.80} must be a text or null")
        if not isinstance(overwrite, (bool, type(None))):
            raise BadRequest(f"overwrite {overwrite!r:.80} must be true or false")
        return cls(SaveAs(save_as), version, bool(overwrite))


def task_version(client: LabelStudioClient, task_id: int) -> str:
    """Another text when an annotation or a draft of the task has come, gone or changed.

    Raises LabelStudioError.
    """
    return _Work.of(client, task_id).version


@dataclass(frozen=True)
class _Work:
    """What people have done on a task."""

    annotations: Sequence[Item]
    drafts: Sequence[Item]

    @classmethod
    def of(cls, client: LabelStudioClient, task_id: int) -> _Work:
        return cls(client.annotations(task_id), client.drafts(task_id))

    @property
    def version(self) -> str:
        kinds = (("annotation", self.annotations), ("draft", self.drafts))
        return fingerprint(
            sorted([kind, item["id"], item.get("updated_at")] for kind, items in kinds for item in items)
        )


def save_session(session: Session, order: SaveOrder, service: TrackingService) -> Json:
    """Store what the session has; `{"as", "id", "url", "left_out", "version"}`.

    Raises UnusableTask without a task, NothingToSave, TaskChanged, Conflict for a label
    config that has changed, and LabelStudioError; the session stays as it is.
    """
    task_id, project_id = session.origin.task_id, session.origin.project_id
    if task_id is None or project_id is None:
        raise UnusableTask("the session is on no task of Label Studio: export it instead")
    client = service.tasks.client()
    with session.saving:
        revision, serial = session.state_revision, session.serial
        found = regions_of(session, settings=service.settings, media=service.media)
        if not found.regions:
            raise NothingToSave(_why_nothing(found))
        work = _Work.of(client, task_id)
        if order.version not in (None, work.version) and not order.overwrite:
            raise TaskChanged(
                f"task {task_id} has been worked on in Label Studio since it was opened here: "
                'open it again, or save with "overwrite": true'
            )
        _check_config(client, project_id, found.regions)
        item_id = _Saver(client, session, service.settings.model_version, found.regions).save(
            order.save_as, work
        )
        session.note_saved(Saved(order.save_as, item_id, time.time(), revision, serial))
        logger.info(
            "session %s is %s %d of task %d", session.id, order.save_as, item_id, task_id
        )
        return {
            "as": str(order.save_as),
            "id": item_id,
            "url": service.settings.task_page(project_id, task_id),
            "left_out": list(found.left_out),
            "version": _version_after(client, task_id),
        }


def _why_nothing(found: SessionRegions) -> str:
    reasons = [f"{item['object']}: {item['reason']}" for item in found.left_out]
    return "; ".join(reasons) or "no object has a mask yet"


def _check_config(
    client: LabelStudioClient, project_id: int, regions: Sequence[Json]
) -> None:
    """Label Studio would take regions of controls that are gone, and show none of them."""
    try:
        config = parse_label_config(client.project(project_id)["label_config"])
        check_results(regions, config=config)
    except ValueError as error:
        raise Conflict(
            f"the label config of project {project_id} has changed since the session began, and "
            f"the regions do not fit it: {error}"
        ) from None


def _version_after(client: LabelStudioClient, task_id: int) -> str | None:
    """None when it cannot be had: what was to be stored is stored."""
    try:
        return task_version(client, task_id)
    except ServiceError as error:
        logger.warning("the version of task %d is not known: %s", task_id, error.detail)
        return None


@dataclass(frozen=True)
class _Saver:
    """Changes what this session stored before, else stores something new; gives its id."""

    client: LabelStudioClient
    session: Session
    model_version: str
    regions: Sequence[Json]

    def save(self, save_as: SaveAs, work: _Work) -> int:
        if save_as is SaveAs.ANNOTATION:
            return self._annotation(work.annotations)
        if save_as is SaveAs.DRAFT:
            return self._draft(work.drafts)
        return self._prediction()

    def _annotation(self, annotations: Sequence[Item]) -> int:
        old = self._earlier(SaveAs.ANNOTATION, annotations, self.session.origin.annotation_id)
        if old is None:
            return self.client.create_annotation(self._task_id, self.regions)
        return self.client.update_annotation(old["id"], self._with_others(old))

    def _draft(self, drafts: Sequence[Item]) -> int:
        # Another person's editor would write over what is changed in their draft.
        user = self.client.who_am_i().get("email")
        old = self._earlier(SaveAs.DRAFT, [item for item in drafts if item.get("user") == user])
        if old is None:
            return self.client.create_draft(self._task_id, self.regions)
        return self.client.update_draft(old["id"], self._task_id, self._with_others(old))

    def _prediction(self) -> int:
        score = round(min(track_scores(self.session.tracks()), default=0.0), 6)
        version = self.model_version
        old = self._earlier(SaveAs.PREDICTION, self.client.predictions(self._task_id))
        if old is None:
            return self.client.create_prediction(
                self._task_id, self.regions, score=score, model_version=version
            )
        return self.client.update_prediction(
            old["id"], self.regions, score=score, model_version=version
        )

    @property
    def _task_id(self) -> int:
        assert self.session.origin.task_id is not None
        return self.session.origin.task_id

    def _earlier(
        self, save_as: SaveAs, items: Sequence[Item], began_with: int | None = None
    ) -> Item | None:
        saved = self.session.saved
        saved_id = saved.id if saved is not None and saved.save_as == save_as else None
        by_id = {item["id"]: item for item in items}
        for known in (saved_id, began_with):
            if known in by_id:
                return by_id[known]
        return next((item for item in items if self._is_ours(item)), None)

    def _is_ours(self, item: Item) -> bool:
        regions = [r for r in item.get("result") or () if _is_region(r)]
        return bool(regions) and all(_session_of(r) == self.session.id for r in regions)

    def _with_others(self, old: Item) -> list[Json]:
        """The session's regions, and what else the item has: it is not the session's to
        take away."""
        tags = {self.session.origin.tag_name, *(region["to_name"] for region in self.regions)}
        others, replaced = [], set()
        for part in old.get("result") or ():
            if _is_region(part) and part.get("to_name") in tags:
                replaced.add(part.get("id"))
            else:
                others.append(part)
        gone = replaced - {region["id"] for region in self.regions}
        kept = [part for part in others if gone.isdisjoint(_regions_named_by(part))]
        return [*self.regions, *kept]


def _regions_named_by(part: Item) -> tuple[object, ...]:
    if part.get("type") == _RELATION:
        return (part.get("from_id"), part.get("to_id"))
    return (part.get("id"),)


def _is_region(part: object) -> bool:
    return isinstance(part, Mapping) and (
        part.get("type") in _VIDEO_TYPES or image_kind_of(part) is not None
    )


def _session_of(region: Item) -> object:
    meta = region.get("meta")
    stamp = meta.get(STAMP) if isinstance(meta, Mapping) else None
    return stamp.get("session") if isinstance(stamp, Mapping) else None
