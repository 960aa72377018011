"""`evaluate DATA`: how good a model's tracks are.

DATA is one of:

- a data set of masks, in any format that `convert` reads (DAVIS, YouTube-VOS,
  SA-V, COCO, YouTube-VIS, a Label Studio export): J and F by the
  semi-supervised protocol. With DAVIS 2017 val and `--model sam2.1_hiera_large`
  this is the published measurement;
- a JSON file that lists video files with boxes drawn by hand: IoU of boxes;
- the word `synthetic`: held-out clips of the training generator.

`python -m sam2_model.evaluation` takes the last two.
"""

from __future__ import annotations

import argparse
from pathlib import Path

SYNTHETIC = "synthetic"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("data", help="a data set's folder or file, a file of boxes, or 'synthetic'")
    parser.add_argument("--model", default="demo", help="a model's name (default: demo)")
    parser.add_argument("--checkpoint", help="a file of weights for the model")
    parser.add_argument("--device", help="cpu, cuda, ...")
    parser.add_argument(
        "--prompt", default="mask", choices=("mask", "box", "click"),
        help="what the first frame shows of an object (default: mask, as in DAVIS)",
    )
    parser.add_argument("--videos", nargs="+", metavar="NAME", help="only these")
    parser.add_argument(
        "--keep-ends", action="store_true",
        help="judge the first and last frames too (DAVIS does not)",
    )
    parser.add_argument("--clips", type=int, default=50, help="synthetic clips (default: 50)")
    parser.add_argument(
        "--first-clip", type=int, default=0, metavar="N",
        help="begin with this synthetic clip (default: 0)",
    )
    parser.add_argument(
        "--materials", type=Path,
        help="folder made by training.materials, for synthetic clips of real pictures",
    )
    parser.add_argument("--overlays", type=Path, help="write pictures of the worst cases here")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quiet", action="store_true", help="only the table")
