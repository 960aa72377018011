"""Checkpoint files: a name, a path or a hub id -> a verified file -> weights in a module.

The eight published SAM 2 checkpoints (https://github.com/facebookresearch/sam2#download-checkpoints)
are known by name. A name becomes a file in the cache folder, downloaded once however many processes
ask, continued after a cut, and compared with its published SHA-256 before it gets its final name.

Nothing here prints or keeps global state, and `cache_folder` is the one function that reads the
environment. Downloading does not import torch.

Where things are: `resolve` says which file a name means, `published` which checkpoints there are and
whether a file is one, `cache` where downloads go; `download` brings a file, over `https` (what is
asked of a server) and `partial_file` (what is on disk meanwhile), or `hub` does; `state_dicts` loads
it; `errors` are theirs.
"""

from sam2_model.checkpoints.cache import cache_folder
from sam2_model.checkpoints.download import (
    MAX_DOWNLOAD_BYTES,
    MIN_BYTES_PER_SECOND,
    Progress,
    download_checkpoint,
)
from sam2_model.checkpoints.errors import (
    CheckpointDownloadError,
    CheckpointError,
    CheckpointFileError,
    CheckpointMismatchError,
)
from sam2_model.checkpoints.hub import fetch_from_hub
from sam2_model.checkpoints.published import REMOTE_CHECKPOINTS, RemoteCheckpoint
from sam2_model.checkpoints.resolve import DEMO_CHECKPOINT_NAME, fetch_checkpoint, resolve_checkpoint
from sam2_model.checkpoints.state_dicts import load_into, load_state_dict_file

__all__ = [
    "DEMO_CHECKPOINT_NAME",
    "MAX_DOWNLOAD_BYTES",
    "MIN_BYTES_PER_SECOND",
    "REMOTE_CHECKPOINTS",
    "CheckpointDownloadError",
    "CheckpointError",
    "CheckpointFileError",
    "CheckpointMismatchError",
    "Progress",
    "RemoteCheckpoint",
    "cache_folder",
    "download_checkpoint",
    "fetch_checkpoint",
    "fetch_from_hub",
    "load_into",
    "load_state_dict_file",
    "resolve_checkpoint",
]
