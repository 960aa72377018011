"""The recipe of the embedded model: `python -m sam2_model.training.demo`.

Stages from small and still to larger and moving; each continues with the
averaged weights of the one before. A run that was stopped goes on where it
was; finished stages are not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sam2_model.build import default_device, default_dtype
from sam2_model.configs import DEMO
from sam2_model.network import SAM2Network
from sam2_model.training.batches import BatchSettings, step_batches
from sam2_model.training.materials import TRUNK_NAME, Materials
from sam2_model.training.losses import LossWeights
from sam2_model.training.objective import PromptMix
from sam2_model.training.progress import training_bar
from sam2_model.training.trainer import Schedule, Trainer


@dataclass(frozen=True, kw_only=True)
class Stage:
    name: str
    batches: BatchSettings
    between: BatchSettings | None = None
    """Every second step is of these."""
    schedule: Schedule
    prompt_mix: PromptMix = PromptMix()
    loss_weights: LossWeights = LossWeights()
    spoiled_share: float = 0.0
    """See `objective.run_clips`."""

    @property
    def in_turn(self) -> tuple[BatchSettings, ...]:
        """What the first step sees, and the second, and so on again."""
        return (self.batches, self.between) if self.between else (self.batches,)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where and for how long to train now."""

    device: torch.device
    parts: int
    """See `Trainer`."""
    dtype: torch.dtype | None
    """None: what the device multiplies fastest."""
    workers: int
    trunk: Path | None
    """Pretrained weights of the trunk (safetensors); None: random ones."""
    until_time: float
    """Of `time.monotonic()`."""


_FROM_SCRATCH = LossWeights(focal=0.0, cross_entropy=2.0)
_MATCHING = dataclasses.replace(_FROM_SCRATCH, presence=2.0, absent=3.0, matching=0.5)

_TRUNK = "image_encoder.trunk."
_FINE_TRUNK = tuple(f"{_TRUNK}{part}." for part in ("stem", "groups.0", "groups.1", "groups.2"))
"""The trunk's strides up to 8: edges and textures, as ImageNet taught them."""

STAGES = (
    # The pretrained trunk learns slowly throughout, but for what it knows of edges:
    # what reads it begins with noise.
    Stage(
        name="1-images",
        batches=BatchSettings(
            image_size=256, frame_count=1, clip_count=12, objects_per_clip=2,
            mix=(("composed", 0.5), ("image", 0.5)), least_area=0.01,
        ),
        schedule=Schedule(
            steps=500, learning_rate=8e-4, warmup_steps=30, final_fraction=0.4, seed=11,
            frozen=_FINE_TRUNK, slowed=(_TRUNK,), slowed_by=0.15,
        ),
        prompt_mix=PromptMix(box=0.5, point=0.5),
        loss_weights=_FROM_SCRATCH,
    ),
    # Standing still, it costs next to nothing, and more clips fit a minute.
    Stage(
        name="2-clips",
        batches=BatchSettings(
            image_size=256, frame_count=4, clip_count=4, objects_per_clip=3,
            mix=(("composed", 0.6), ("warped", 0.4)), least_area=0.008,
        ),
        schedule=Schedule(
            steps=600, learning_rate=6e-4, warmup_steps=30, final_fraction=0.5, seed=12,
            frozen=(_TRUNK,),
        ),
        prompt_mix=PromptMix(box=0.35, point=0.3),
        loss_weights=_FROM_SCRATCH,
    ),
    Stage(
        name="3-longer-clips",
        batches=BatchSettings(
            image_size=320, frame_count=6, clip_count=2, objects_per_clip=2,
            mix=(("composed", 0.6), ("warped", 0.4)), least_area=0.005,
        ),
        schedule=Schedule(
            steps=200, learning_rate=4e-4, warmup_steps=30, final_fraction=0.8, seed=13,
            frozen=_FINE_TRUNK, slowed=(_TRUNK,), slowed_by=0.15,
        ),
        prompt_mix=PromptMix(box=0.3, point=0.3),
        loss_weights=_FROM_SCRATCH,
    ),
    # To come back from a mistake it has to meet some that it would not make by itself.
    Stage(
        name="4-recovery",
        batches=BatchSettings(
            image_size=320, frame_count=7, clip_count=2, objects_per_clip=2,
            mix=(("composed", 0.6), ("warped", 0.4)), least_area=0.005,
        ),
        schedule=Schedule(
            steps=950, learning_rate=4e-4, warmup_steps=20, final_fraction=0.02, seed=14,
            frozen=_FINE_TRUNK, slowed=(_TRUNK,), slowed_by=0.15,
        ),
        prompt_mix=PromptMix(box=0.25, point=0.25),
        loss_weights=_FROM_SCRATCH,
        spoiled_share=0.2,
    ),
    # The first frame's mask bounds all others: far more objects than the first stage
    # saw, since decoding one more on an encoded picture is cheap.
    Stage(
        name="5-more-images",
        batches=BatchSettings(
            image_size=256, frame_count=1, clip_count=12, objects_per_clip=4,
            mix=(("composed", 0.5), ("image", 0.5)), least_area=0.005,
        ),
        schedule=Schedule(
            steps=1300, learning_rate=8e-4, warmup_steps=30, final_fraction=0.1, seed=15,
            frozen=_FINE_TRUNK, slowed=(_TRUNK,), slowed_by=0.15,
        ),
        prompt_mix=PromptMix(box=0.5, point=0.5),
        loss_weights=_FROM_SCRATCH,
    ),
    Stage(
        name="6-more-clips",
        batches=BatchSettings(
            image_size=320, frame_count=6, clip_count=2, objects_per_clip=3,
            mix=(("composed", 0.6), ("warped", 0.4)), least_area=0.005,
        ),
        schedule=Schedule(
            steps=650, learning_rate=4e-4, warmup_steps=20, final_fraction=0.02, seed=16,
            frozen=_FINE_TRUNK, slowed=(_TRUNK,), slowed_by=0.15,
        ),
        prompt_mix=PromptMix(box=0.35, point=0.35),
        loss_weights=dataclasses.replace(_FROM_SCRATCH, presence=2.0),
        spoiled_share=0.2,
    ),
    Stage(
        name="7-images-again",
        batches=BatchSettings(
            image_size=256, frame_count=1, clip_count=8, objects_per_clip=5,
            mix=(("composed", 0.5), ("image", 0.5)), least_area=0.005,
        ),
        schedule=Schedule(
            steps=500, learning_rate=5e-4, warmup_steps=20, final_fraction=0.1, seed=17,
            frozen=_FINE_TRUNK, slowed=(_TRUNK,), slowed_by=0.2,
        ),
        prompt_mix=PromptMix(box=0.5, point=0.5, correction_clicks=2),
        loss_weights=_FROM_SCRATCH,
    ),
    # Long clips in which objects leave and hide: so far it had met so few that it never
    # said of one that it is gone. What it sees in a picture stays as it is.
    Stage(
        name="8-absence",
        batches=BatchSettings(
            image_size=320, frame_count=8, clip_count=2, objects_per_clip=3,
            mix=(("composed", 0.8), ("warped", 0.2)), least_area=0.005,
            leave=0.4, occluder=0.6,
        ),
        schedule=Schedule(
            steps=600, learning_rate=4e-4, warmup_steps=20, final_fraction=0.02, seed=18,
            frozen=("image_encoder.",),
        ),
        prompt_mix=PromptMix(box=0.35, point=0.25),
        loss_weights=dataclasses.replace(_FROM_SCRATCH, presence=2.0, absent=3.0),
        spoiled_share=0.2,
    ),
    # The same again with what compares cells with those remembered, which begins with
    # noise: it tells an object that is gone, or hidden, from what is in its place.
    Stage(
        name="9-matching",
        batches=BatchSettings(
            image_size=320, frame_count=9, clip_count=2, objects_per_clip=3,
            mix=(("composed", 0.8), ("warped", 0.2)), least_area=0.005,
            leave=0.35, occluder=0.6,
        ),
        schedule=Schedule(
            steps=1100, learning_rate=5e-4, warmup_steps=30, final_fraction=0.02, seed=19,
            frozen=("image_encoder.",),
        ),
        prompt_mix=PromptMix(box=0.35, point=0.25),
        loss_weights=_MATCHING,
        spoiled_share=0.15,
    ),
    # What the first frame misses no later one finds. The network knew as little of what it
    # was taught with as of other pictures: it had not met enough of them.
    Stage(
        name="10-first-frames",
        batches=BatchSettings(
            image_size=288, frame_count=1, clip_count=8, objects_per_clip=5,
            mix=(("composed", 0.6), ("image", 0.4)), least_area=0.005,
        ),
        schedule=Schedule(
            steps=1200, learning_rate=6e-4, warmup_steps=30, final_fraction=0.02, seed=20,
            frozen=_FINE_TRUNK, slowed=(_TRUNK,), slowed_by=0.15,
        ),
        prompt_mix=PromptMix(box=0.45, point=0.55, central=0.5),
        loss_weights=_FROM_SCRATCH,
    ),
    # Tracking again, by what the encoder sees now.
    Stage(
        name="11-clips-again",
        batches=BatchSettings(
            image_size=320, frame_count=9, clip_count=2, objects_per_clip=3,
            mix=(("composed", 0.75), ("warped", 0.25)), least_area=0.005,
            leave=0.35, occluder=0.6,
        ),
        schedule=Schedule(
            steps=640, learning_rate=5e-4, warmup_steps=20, final_fraction=0.02, seed=21,
            frozen=("image_encoder.",),
        ),
        prompt_mix=PromptMix(box=0.35, point=0.3, central=0.5),
        loss_weights=_MATCHING,
        spoiled_share=0.15,
    ),
    # Both at once: each of the last two stages took back some of what the other had taught.
    # And drawn scenes beside photographs, of which it had seen none.
    Stage(
        name="12-first-frames-and-clips",
        batches=BatchSettings(
            image_size=320, frame_count=9, clip_count=2, objects_per_clip=3,
            mix=(("composed", 0.35), ("drawn", 0.45), ("warped", 0.2)), least_area=0.005,
            leave=0.35, occluder=0.6, encoder_learns=False,
        ),
        between=BatchSettings(
            image_size=320, frame_count=1, clip_count=6, objects_per_clip=5,
            mix=(("composed", 0.3), ("drawn", 0.35), ("image", 0.35)), least_area=0.005,
        ),
        schedule=Schedule(
            steps=1900, learning_rate=5e-4, warmup_steps=30, final_fraction=0.02, seed=22,
            frozen=_FINE_TRUNK, slowed=(_TRUNK,), slowed_by=0.15,
        ),
        prompt_mix=PromptMix(box=0.35, point=0.35, central=0.5),
        loss_weights=_MATCHING,
        spoiled_share=0.15,
    ),
)


def config_at(image_size: int):
    """The demo network at another image size; the weights fit all of them."""
    return dataclasses.replace(DEMO, image_size=image_size)


def run_stage(
    stage: Stage, materials: Materials, folder: Path, start_from: Path | None, run: Run
) -> Path | None:
    """Train one stage to its end and return its checkpoint; None when time ran out first.

    `start_from` are the weights it begins with; without any, the pretrained
    trunk among the materials and random ones.
    """
    torch.manual_seed(stage.schedule.seed)
    network = SAM2Network(config_at(stage.batches.image_size))
    if start_from is None and run.trunk is not None:
        network.image_encoder.trunk.load_state_dict(load_file(run.trunk))
    network = network.to(run.device)
    trainer = Trainer(
        network, stage.schedule, folder / stage.name,
        prompt_mix=stage.prompt_mix, loss_weights=stage.loss_weights,
        spoiled_share=stage.spoiled_share,
        dtype=run.dtype or default_dtype(network.device),
        parts=run.parts,
    )
    if not trainer.resume() and start_from is not None:
        trainer.start_from(weights_of(start_from))
    if trainer.step < stage.schedule.steps:
        in_turn = [
            dataclasses.replace(settings, compose_on=run.device.type)
            for settings in stage.in_turn
        ]
        batches = step_batches(
            materials, in_turn, workers=run.workers,
            seed=stage.schedule.seed, start=trainer.step, stop=stage.schedule.steps,
        )
        with training_bar(stage.name, trainer.step, stage.schedule.steps) as report:
            trainer.train(batches, report=report, until_time=run.until_time)
    return trainer.checkpoint_path if trainer.step == stage.schedule.steps else None


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    """Weights to go on from: a stage's averaged ones, or an exported file's."""
    if path.suffix == ".safetensors":
        return {name: value.float() for name, value in load_file(path).items()}
    return torch.load(path, weights_only=True)["average"]


def export(
    checkpoint: Path, target: Path, *, earlier: Path | None = None, new_share: float = 1.0
) -> None:
    """The averaged weights as float16 safetensors, for the package.

    Args:
        earlier: weights that the run began with; the mean of both, with `new_share` of
            the run's, often tracks better than either (https://arxiv.org/abs/2109.01903).
            What they lack is the run's alone.
    """
    average = torch.load(checkpoint, weights_only=True)["average"]
    if earlier is not None:
        before = weights_of(earlier)
        average = {
            name: before[name].lerp(new, new_share) if name in before else new
            for name, new in average.items()
        }
    # The point frequencies stay exact; everything else rounds harmlessly.
    exact = ("positional_encoding_gaussian_matrix",)
    tensors = {
        name: value.contiguous() if name.endswith(exact) else value.half().contiguous()
        for name, value in average.items()
    }
    save_file(tensors, target)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m sam2_model.training.demo", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--materials", type=Path, help="folder made by training.materials")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--export", type=Path, help="write the newest stage's weights here")
    parser.add_argument(
        "--mean-with", type=Path, metavar="FILE",
        help="with --export: a mean with these earlier weights, by --new-share",
    )
    parser.add_argument("--new-share", type=float, default=0.75)
    parser.add_argument("--start-from", type=Path, help="weights that the first stage begins with")
    parser.add_argument(
        "--stages", nargs="+", choices=[stage.name for stage in STAGES],
        help="only these; the first begins with the weights of --start-from",
    )
    parser.add_argument("--device", default=str(default_device()), help="default: a GPU if any")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--parts", type=int, default=1,
        help="threads that share a step's clips: as many as --threads, on a CPU",
    )
    parser.add_argument(
        "--float32", action="store_true",
        help="also where the device multiplies bfloat16: faster on some CPUs",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that make clips")
    parser.add_argument(
        "--minutes", type=float, default=math.inf,
        help="stop in time, to go on with the same command later",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.export:
        begun = [arguments.out / stage.name / "checkpoint.pt" for stage in STAGES]
        newest = [path for path in begun if path.exists()][-1]
        export(
            newest, arguments.export,
            earlier=arguments.mean_with, new_share=arguments.new_share,
        )
        return
    if arguments.materials:
        materials = Materials.load(arguments.materials, "train")
        trunk = arguments.materials / TRUNK_NAME
    else:
        materials, trunk = Materials.procedural(0), None
    run = Run(
        device=torch.device(arguments.device), parts=arguments.parts,
        dtype=torch.float32 if arguments.float32 else None, workers=arguments.workers, trunk=trunk,
        until_time=time.monotonic() + 60 * arguments.minutes,
    )
    checkpoint = arguments.start_from
    for stage in STAGES:
        if arguments.stages and stage.name not in arguments.stages:
            continue
        checkpoint = run_stage(stage, materials, arguments.out, checkpoint, run)
        if checkpoint is None:
            print(f"stage {stage.name} is not finished: the same command goes on with it")
            return


if __name__ == "__main__":
    main()
