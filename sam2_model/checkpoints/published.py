"""Which checkpoints are published, and whether a file is one of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sam2_model.checkpoints.errors import CheckpointFileError


@dataclass(frozen=True)
class RemoteCheckpoint:
    """A checkpoint that can be downloaded."""

    name: str
    file_name: str
    """The file's name in the cache folder, at the end of `url` and in the hub repository."""
    url: str
    sha256: str | None
    """64 lower-case hex digits, or None where no trustworthy source is known."""
    size_bytes: int | None
    hub_id: str | None

    def __post_init__(self) -> None:
        if Path(self.file_name).name != self.file_name:
            raise ValueError(f"file_name={self.file_name!r}: must be a plain file name")
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256={self.sha256!r}: must be 64 lower-case hex digits or None")


# The publisher lists no hashes or sizes. Each SHA-256 below was found identical in at least two
# independent public places that pin the official address:
#   all eight  computational-cell-analytics/micro-sam, micro_sam/v2/util.py, HASHES (2.0 only in
#              earlier revisions), which downloads from these URLs
#   all 2.0    mazurowski-lab/SlicerSegmentWithSAM, SegmentWithSAM.py, likewise
#   all 2.1    manifests of several other projects, each with the byte count; for small, one states
#              that the official file and the one in the facebook/ hub repository are identical
# The sizes are from such manifests, one of which lists all eight. None was recomputed here.
_PUBLISHED = (
    # release, size, sha256, bytes
    ("sam2", "tiny", "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125", 155906050),
    ("sam2", "small", "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3", 184309650),
    ("sam2", "base_plus", "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071", 323493298),
    ("sam2", "large", "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b", 897952466),
    ("sam2.1", "tiny", "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69", 156008466),
    ("sam2.1", "small", "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38", 184416285),
    ("sam2.1", "base_plus", "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5", 323606802),
    ("sam2.1", "large", "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318", 898083611),
)

_RELEASE_FOLDERS = {
    "sam2": "https://dl.fbaipublicfiles.com/segment_anything_2/072824",
    "sam2.1": "https://dl.fbaipublicfiles.com/segment_anything_2/092824",
}


def _published(release: str, size: str, sha256: str, size_bytes: int) -> RemoteCheckpoint:
    name = f"{release}_hiera_{size}"
    return RemoteCheckpoint(
        name=name,
        file_name=f"{name}.pt",
        url=f"{_RELEASE_FOLDERS[release]}/{name}.pt",
        sha256=sha256,
        size_bytes=size_bytes,
        hub_id=f"facebook/{release}-hiera-{size.replace('_', '-')}",
    )


REMOTE_CHECKPOINTS: Mapping[str, RemoteCheckpoint] = MappingProxyType(
    {remote.name: remote for remote in (_published(*row) for row in _PUBLISHED)}
)
"""Name -> published checkpoint, e.g. `sam2.1_hiera_base_plus`."""


def verify_existing(path: Path, remote: RemoteCheckpoint) -> None:
    """Compares a whole file with what is known of it; the size first, since it costs nothing."""
    try:
        size_bytes = path.stat().st_size
        if remote.size_bytes is not None and size_bytes != remote.size_bytes:
            found, expected = f"{size_bytes} bytes", f"{remote.size_bytes} bytes"
        elif remote.sha256 is not None and (digest := file_sha256(path)) != remote.sha256:
            found, expected = f"sha256 {digest}", f"sha256 {remote.sha256}"
        else:
            return
    except OSError as error:
        raise CheckpointFileError(f"{path}: cannot be read: {error}") from error
    raise CheckpointFileError(
        f"{path} is not the published {remote.name}: expected {expected}, found {found}; "
        f"delete it to have it downloaded, or replace it with {remote.url}"
    )


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, as 64 lower-case hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
