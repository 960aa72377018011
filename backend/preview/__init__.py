"""Pictures of tracks: videos, GIFs and contact sheets with masks drawn in, plots.

`drawing` paints one frame and is what `video` and `sheet` share; `colours` and
`text` are its paint; `doubt` says where a track is doubtful, as data, and
`plot` draws that. Nothing here reads the environment or prints.
"""

from backend.preview.colours import Style, object_styles
from backend.preview.doubt import (
    Doubt,
    DoubtfulStretch,
    DoubtLimits,
    TrackCurve,
    doubtful_stretches,
    track_curve,
)
from backend.preview.drawing import FramePainter, draw_masks, draw_prompts, outline
from backend.preview.plot import plot_tracks
from backend.preview.sheet import contact_sheet, sheet_frames
from backend.preview.text import Lettering
from backend.preview.video import save_gif, save_video

__all__ = [
    "Doubt",
    "DoubtLimits",
    "DoubtfulStretch",
    "FramePainter",
    "Lettering",
    "Style",
    "TrackCurve",
    "contact_sheet",
    "doubtful_stretches",
    "draw_masks",
    "draw_prompts",
    "object_styles",
    "outline",
    "plot_tracks",
    "save_gif",
    "save_video",
    "sheet_frames",
    "track_curve",
]
