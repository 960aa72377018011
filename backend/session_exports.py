"""A session's tracks as a data set in one file, through the converters."""

from __future__ import annotations

import re
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from backend.convert import ConvertOptions, convert
from backend.errors import BadRequest, Conflict
from backend.session_results import session_name, tracks_json
from backend.sessions import Session
from converters.formats import Format
from converters.report import Report
from converters.selection import Selection

_FORMATS = {
    "coco": Format.COCO,
    "youtube_vis": Format.YOUTUBE_VIS,
    "sav": Format.SAV,
    "davis": Format.DAVIS,
    "tracks": Format.TRACKS,
}
_UNLABELLED = "object"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class SessionExport:
    """A file to take away."""

    content: bytes
    file_name: str
    mime_type: str
    remarks: list[str]
    """What was left out or changed, as `converters.report.Report` says it."""


def export_of(session: Session, name: str) -> SessionExport:
    """The data set; a zip where the format is a folder.

    Raises BadRequest for an unknown format, Conflict when no object has a mask, and
    ValueError as the converters do.
    """
    if name not in _FORMATS:
        raise BadRequest(f"format {name!r:.80} must be one of {list(_FORMATS)}")
    if not any(track.masks for track in session.tracks()):
        raise Conflict("no object has a mask yet: there is nothing to export")
    stem = _NOT_IN_NAMES.sub("_", session_name(session)).strip("._") or "video"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source.json")
        source.write_bytes(tracks_json(session))
        out = Path(folder, "out", stem if name in ("sav", "davis") else f"{stem}.json")
        selection = Selection(default_label=_UNLABELLED)
        report = convert(
            ConvertOptions(source=source, to=_FORMATS[name], out=out, selection=selection), Report()
        )
        if out.is_dir():
            path = Path(folder, "all.zip")
            _zip(out, path)
            return SessionExport(
                path.read_bytes(), f"{stem}.{name}.zip", "application/zip", report.remarks()
            )
        return SessionExport(
            out.read_bytes(), f"{stem}.{name}.json", "application/json", report.remarks()
        )


def _zip(folder: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder.parent))
