"""`sam2-label-studio finetune` and `evaluate`."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Sequence

from backend.commands.options import add_strict_option, say_malformed
from backend.settings import Settings
from converters.files import whole_file
from sam2_model.evaluation import options as evaluation_options


def add_finetune(commands) -> None:
    parser = commands.add_parser(
        "finetune", help="fine-tune a model on annotated videos",
        description="Fine-tune SAM 2 on your own annotations: J and F on held-back videos "
        "before and after, and weights that any command takes by name.",
    )
    parser.add_argument(
        "--data", required=True, type=Path,
        help="COCO, YouTube-VIS, tracks.json or Label Studio export, or a folder in "
        "SA-V or DAVIS layout",
    )
    _add_media_options(parser)
    parser.add_argument("--model", default="demo", help="name or file to start from")
    parser.add_argument("--checkpoint", help="a file of weights for the model")
    parser.add_argument("--out", required=True, type=Path, help="folder for weights and report")
    parser.add_argument("--name", help="also make the result known under this model name")
    parser.add_argument("--steps", type=int, default=400, help="of training; default 400")
    parser.add_argument("--learning-rate", type=float, help="default by what is learned in")
    parser.add_argument(
        "--new-share", type=float, default=0.4,
        help="how much of the weights is new, above 0 to 1: 1 for a model that sees nothing "
        "but such videos (default 0.4, which keeps what it knew)",
    )
    parser.add_argument(
        "--train-encoder", action="store_true",
        help="learn in the image encoder too (for pictures of an unusual kind)",
    )
    parser.add_argument("--frames", type=int, default=4, help="frames of a training clip, 1 to 8")
    parser.add_argument("--clips", type=int, default=2, help="clips a step")
    parser.add_argument("--objects", type=int, default=3, help="objects a clip, at most")
    parser.add_argument(
        "--general-share", type=float, metavar="SHARE",
        help="share of the steps that show clips of drawn things instead of yours, so that what "
        "the model knows is not forgotten (default: 0.5 for demo, 0 for the published models)",
    )
    parser.add_argument(
        "--validation-share", type=float, default=0.25, help="share of the videos held back"
    )
    parser.add_argument(
        "--evaluate-every", type=int, default=50, metavar="STEPS", help="steps between judgements"
    )
    parser.add_argument("--patience", type=int, default=4, help="judgements without a gain")
    parser.add_argument(
        "--prompt", default="box", choices=("mask", "box", "click"),
        help="what the first frame shows of an object when it is judged; default box",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws of clips and held-back videos")
    parser.add_argument("--device", help="cpu, cuda, ...")
    parser.add_argument("--quiet", action="store_true", help="only the result")
    parser.set_defaults(run=_finetune)


def add_evaluate(commands) -> None:
    parser = commands.add_parser(
        "evaluate", help="J and F of a model on a data set",
        description=evaluation_options.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    evaluation_options.add_options(parser)
    _add_media_options(parser)
    parser.set_defaults(run=_evaluate)


def _add_media_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--media-root", type=Path,
        help="folder of the videos or images; default: where the data set is",
    )
    parser.add_argument("--label-config", type=Path, help="of a Label Studio export, if not in it")
    add_strict_option(parser)


def _evaluate(options: argparse.Namespace, settings: Settings) -> int:
    from sam2_model.evaluation import command

    return command.run(options, lambda options: open_cases(Path(options.data), options))


def open_cases(data: Path, options: argparse.Namespace) -> Sequence:
    """The videos of a data set in any format the converters read."""
    from backend.annotated import cases_of
    from converters.report import Report

    if not data.exists():
        raise FileNotFoundError(f"{data} is not there")
    report = Report(strict=options.strict)
    cases = cases_of(
        data, label_config=options.label_config.read_text() if options.label_config else None,
        media_root=options.media_root, only=getattr(options, "videos", None), report=report,
    )
    say_malformed(report)
    return cases


def _finetune(options: argparse.Namespace, settings: Settings) -> int:
    import torch

    from sam2_model.build import DOWNLOAD, FINETUNED_FILE_NAME, build_network
    from sam2_model.checkpoints.finetuned import finetuned_path
    from sam2_model.evaluation.semi_supervised import PromptKind
    from sam2_model.training.finetune import FinetuneSettings, Listener, finetune
    from sam2_model.training.progress import training_bar

    tuning = FinetuneSettings(
        steps=options.steps, learning_rate=options.learning_rate,
        new_share=options.new_share,
        train_encoder=options.train_encoder, frame_count=options.frames,
        clip_count=options.clips, objects_per_clip=options.objects,
        general_share=options.general_share,
        validation_share=options.validation_share, evaluate_every=options.evaluate_every,
        patience=options.patience, prompt=PromptKind(options.prompt), seed=options.seed,
    )
    # A name that cannot be had is said before hours of work, not after.
    registered = finetuned_path(options.name) if options.name else None
    videos = open_cases(options.data, options)
    network = build_network(
        options.model, options.checkpoint or DOWNLOAD, device=options.device,
        dtype=torch.float32, mode="train",
    )

    def say(text: str) -> None:
        if not options.quiet:
            print(text, file=sys.stderr, flush=True)

    say(f"{len(videos)} annotated videos")
    with training_bar("fine-tuning", 0, tuning.steps, quiet=options.quiet) as report:
        result = finetune(
            network, videos, options.out, tuning,
            Listener(
                prepared=lambda done, total: say(f"video {done} of {total} prepared"),
                trained=report,
                judged=lambda judgement: say(
                    f"step {judgement.step}: J {100 * judgement.region:.1f} "
                    f"F {100 * judgement.contour:.1f}"
                ),
            ),
        )
    before, best = result.before, result.best
    print(f"trained on {len(result.training_videos)} videos, "
          f"judged on {len(result.validation_videos)}: {', '.join(result.validation_videos)}")
    print(f"{'':8} {'J&F':>6} {'J':>6} {'F':>6}")
    for title, judgement in (("before", before), ("after", best)):
        cells = (judgement.region_and_contour, judgement.region, judgement.contour)
        print(f"{title:8} " + " ".join(f"{100 * value:6.1f}" for value in cells))
    if best.step == 0:
        print("nothing was gained: the weights are those the model had")
    print(options.out / FINETUNED_FILE_NAME)
    if registered:
        _register(options.out / FINETUNED_FILE_NAME, registered)
        print(f"known as --model {options.name}")
    return 0


def _register(weights: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as partial:
        shutil.copyfile(weights, partial)
