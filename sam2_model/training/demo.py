"""The recipe of the embedded model: `python -m sam2_model.training.demo`.

Stages from small and still to larger and moving; each continues with the
averaged weights of the one before. A run that was stopped goes on where it
was; finished stages are not run again.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sam2_model.build import default_dtype
from sam2_model.configs import DEMO
from sam2_model.network import SAM2Network
from sam2_model.training.batches import BatchSettings, step_batches
from sam2_model.training.materials import Materials
from sam2_model.training.losses import LossWeights
from sam2_model.training.objective import PromptMix
from sam2_model.training.trainer import Schedule, Trainer


@dataclass(frozen=True, kw_only=True)
class Stage:
    name: str
    batches: BatchSettings
    schedule: Schedule
    prompt_mix: PromptMix = PromptMix()
    loss_weights: LossWeights = LossWeights()


_FROM_SCRATCH = LossWeights(focal=0.0, cross_entropy=2.0)

STAGES = (
    # A quarter of the area: shapes and edges are learned four times as fast.
    Stage(
        name="1-images",
        batches=BatchSettings(
            image_size=128, frame_count=1, clip_count=10, objects_per_clip=6,
            mix=(("composed", 0.5), ("image", 0.5)), least_area=0.01,
        ),
        schedule=Schedule(steps=900, learning_rate=4e-4, warmup_steps=50, final_fraction=0.5, seed=1),
        prompt_mix=PromptMix(box=0.6, point=0.4),
        loss_weights=_FROM_SCRATCH,
    ),
    Stage(
        name="2-clips",
        batches=BatchSettings(
            image_size=128, frame_count=3, clip_count=5, objects_per_clip=3,
            mix=(("composed", 0.6), ("warped", 0.4)), least_area=0.01,
        ),
        schedule=Schedule(
            steps=1200, learning_rate=4e-4, warmup_steps=50, final_fraction=0.3, seed=2
        ),
        loss_weights=_FROM_SCRATCH,
    ),
    Stage(
        name="3-clips-192",
        batches=BatchSettings(
            image_size=192, frame_count=4, clip_count=2, objects_per_clip=3,
            mix=(("composed", 0.6), ("warped", 0.4)), least_area=0.005,
        ),
        schedule=Schedule(
            steps=350, learning_rate=2.5e-4, warmup_steps=20, final_fraction=0.02, seed=3
        ),
        loss_weights=_FROM_SCRATCH,
    ),
    # Eight frames fill the memory: from here on the model knows every age of it.
    Stage(
        name="4-long-clips-256",
        batches=BatchSettings(
            image_size=256, frame_count=8, clip_count=2, objects_per_clip=2,
            mix=(("composed", 0.65), ("warped", 0.35)), least_area=0.004,
        ),
        schedule=Schedule(
            steps=3000, learning_rate=3e-4, warmup_steps=50, final_fraction=0.3, seed=4
        ),
        prompt_mix=PromptMix(box=0.35, point=0.3),
        loss_weights=_FROM_SCRATCH,
    ),
    Stage(
        name="5-carried-masks-256b",
        batches=BatchSettings(
            image_size=256, frame_count=6, clip_count=2, objects_per_clip=2,
            mix=(("composed", 0.65), ("warped", 0.35)), least_area=0.004,
        ),
        schedule=Schedule(
            steps=1100, learning_rate=4e-4, warmup_steps=30, final_fraction=0.02, seed=5
        ),
        prompt_mix=PromptMix(box=0.35, point=0.3),
        loss_weights=_FROM_SCRATCH,
    ),
)


def config_at(image_size: int):
    """The demo network at another image size; the weights fit all of them."""
    import dataclasses

    return dataclasses.replace(DEMO, image_size=image_size)


def run_stage(stage: Stage, materials: Materials, folder: Path, start_from: Path | None) -> Path:
    """Train one stage to its end and return its checkpoint."""
    torch.manual_seed(stage.schedule.seed)
    network = SAM2Network(config_at(stage.batches.image_size))
    trainer = Trainer(
        network, stage.schedule, folder / stage.name,
        prompt_mix=stage.prompt_mix, loss_weights=stage.loss_weights,
        dtype=default_dtype(network.device),
    )
    if not trainer.resume() and start_from is not None:
        trainer.start_from(weights_of(start_from))
    if trainer.step < stage.schedule.steps:
        batches = step_batches(
            materials, stage.batches,
            seed=stage.schedule.seed, start=trainer.step, stop=stage.schedule.steps,
        )
        trainer.train(batches, report=_report)
    return trainer.checkpoint_path


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    """Weights to go on from: a stage's averaged ones, or an exported file's."""
    if path.suffix == ".safetensors":
        return {name: value.float() for name, value in load_file(path).items()}
    return torch.load(path, weights_only=True)["average"]


def _report(line: dict) -> None:
    if line["step"] % 20 == 0:
        print(line, flush=True)


def export(checkpoint: Path, target: Path) -> None:
    """The averaged weights as float16 safetensors, for the package."""
    average = torch.load(checkpoint, weights_only=True)["average"]
    # The point frequencies stay exact; everything else rounds harmlessly.
    exact = ("positional_encoding_gaussian_matrix",)
    tensors = {
        name: value.contiguous() if name.endswith(exact) else value.half().contiguous()
        for name, value in average.items()
    }
    save_file(tensors, target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--materials", type=Path, help="folder made by training.materials")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--export", type=Path, help="write the newest stage's weights here")
    parser.add_argument("--start-from", type=Path, help="weights that the first stage begins with")
    parser.add_argument(
        "--stages", nargs="+", choices=[stage.name for stage in STAGES],
        help="only these; the first begins with the weights of --start-from",
    )
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.export:
        finished = [arguments.out / stage.name / "checkpoint.pt" for stage in STAGES]
        export([path for path in finished if path.exists()][-1], arguments.export)
        return
    if arguments.materials:
        materials = Materials.load(arguments.materials, "train")
    else:
        materials = Materials.procedural(0)
    checkpoint = arguments.start_from
    for stage in STAGES:
        if arguments.stages and stage.name not in arguments.stages:
            continue
        checkpoint = run_stage(stage, materials, arguments.out, checkpoint)


if __name__ == "__main__":
    main()
