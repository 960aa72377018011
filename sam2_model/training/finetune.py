"""Fine-tune any SAM 2 on annotated videos, and show what it gained.

Videos are split into training and validation by a seeded draw; the validation
videos are judged before, on the way and after, and the best weights are kept.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from sam2_model.build import FINETUNED_FILE_NAME, VIDEO_POSTPROCESSING, default_dtype
from sam2_model.checkpoints.finetuned import save_finetuned
from sam2_model.configs import CONFIGS
from sam2_model.evaluation.semi_supervised import ObjectResult, PromptKind, TrueVideo, evaluate
from sam2_model.network import SAM2Network
from sam2_model.training.batches import BatchSettings, step_batches
from sam2_model.training.demo import STAGES
from sam2_model.training.losses import LossWeights
from sam2_model.training.materials import Materials
from sam2_model.training.objective import ClipBatch, PromptMix
from sam2_model.training.trainer import Schedule, Trainer
from sam2_model.training.video_clips import (
    PreparedVideo,
    VideoClipSettings,
    prepare_videos,
    video_clip_batches,
)
from sam2_model.video_predictor import PredictorOptions, SAM2VideoPredictor

_ENCODER = "image_encoder."
_REPORT = "report.json"


@dataclass(frozen=True, kw_only=True)
class _Manner:
    """What suits a network by how it was taught."""

    learning_rate: float
    loss_weights: LossWeights
    spoiled_share: float
    """See `objective.run_clips`."""
    general_share: float


_PUBLISHED = _Manner(
    learning_rate=1e-5, loss_weights=LossWeights(), spoiled_share=0.0, general_share=0.0
)
# It goes on with the losses it was taught by, or its logits shift first.
_EMBEDDED = _Manner(
    learning_rate=2e-4, loss_weights=STAGES[-1].loss_weights, spoiled_share=0.1,
    general_share=0.5,
)


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
    """How to fine-tune."""

    steps: int = 400
    learning_rate: float | None = None
    """None: 2e-4 for `demo`, 1e-5 for the published models."""
    new_share: float = 0.4
    """How much of the weights is new, above 0 to 1; the rest stays as it was. A mean of
    both keeps nearly all that was learned, and what was known before (WiSE-FT,
    https://arxiv.org/abs/2109.01903); 1 is for a model that sees nothing else."""
    train_encoder: bool = False
    """Learn in the image encoder too, at a tenth of the rate; else it is frozen."""
    frame_count: int = 4
    """Frames of a training clip, 1 to 8."""
    clip_count: int = 2
    objects_per_clip: int = 3
    general_share: float | None = None
    """Share of the steps, below 1, that show clips of drawn things instead of the user's,
    so that what the model knows in general is not forgotten. None: half of them for `demo`,
    which was taught with such clips; none for the published models, which were not."""
    validation_share: float = 0.25
    """Share of the videos that are judged and never trained on; one at least."""
    evaluate_every: int = 50
    patience: int = 4
    """Stop after so many judgements without a better one."""
    prompt: PromptKind = PromptKind.BOX
    """What the validation's objects are shown by."""
    seed: int = 0

    def __post_init__(self) -> None:
        rules = (
            (self.steps >= 1, f"steps={self.steps} must be at least 1"),
            (self.learning_rate is None or self.learning_rate > 0,
             f"learning_rate={self.learning_rate} must be above 0"),
            (0 < self.new_share <= 1, f"new_share={self.new_share} must be above 0, at most 1"),
            (1 <= self.frame_count <= 8, f"frame_count={self.frame_count} must be 1 to 8"),
            (self.clip_count >= 1, f"clip_count={self.clip_count} must be at least 1"),
            (self.objects_per_clip >= 1,
             f"objects_per_clip={self.objects_per_clip} must be at least 1"),
            (self.general_share is None or 0 <= self.general_share < 1,
             f"general_share={self.general_share} must be 0 or above, below 1"),
            (0 < self.validation_share < 1,
             f"validation_share={self.validation_share} must be between 0 and 1"),
            (self.evaluate_every >= 1, f"evaluate_every={self.evaluate_every} must be at least 1"),
            (self.patience >= 1, f"patience={self.patience} must be at least 1"),
            (self.seed >= 0, f"seed={self.seed} must not be negative"),
        )
        for holds, message in rules:
            if not holds:
                raise ValueError(message)


@dataclass(frozen=True)
class Judgement:
    """How good the model is on the validation videos at a step."""

    step: int
    region: float
    """Mean J over objects."""
    contour: float
    """Mean F."""

    @property
    def region_and_contour(self) -> float:
        return (self.region + self.contour) / 2


@dataclass(frozen=True)
class FinetuneReport:
    network: str
    training_videos: tuple[str, ...]
    validation_videos: tuple[str, ...]
    history: tuple[Judgement, ...]
    """The first is of the model as it was, at step 0."""
    weights: Path
    """The best weights; the model's own when nothing was gained."""

    @property
    def before(self) -> Judgement:
        return self.history[0]

    @property
    def best(self) -> Judgement:
        """The first of the best."""
        return max(self.history, key=lambda judgement: judgement.region_and_contour)


@dataclass
class Listener:
    """What is told on the way; all of it may be left as it is."""

    prepared: Callable[[int, int], None] = lambda done, total: None
    trained: Callable[[dict], None] = lambda line: None
    judged: Callable[[Judgement], None] = lambda judgement: None
    is_cancelled: Callable[[], bool] = field(default=lambda: False)
    """Asked between judgements; True keeps what there is and ends."""


def split_videos(
    videos: Sequence[TrueVideo], share: float, seed: int
) -> tuple[list[TrueVideo], list[TrueVideo]]:
    """(training, validation) by a draw that depends on names and seed alone.

    Raises:
        ValueError: fewer than two videos, or two of one name.
    """
    names = [video.name for video in videos]
    if len(set(names)) != len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two videos are called {repeated!r}")
    if len(videos) < 2:
        raise ValueError(
            f"{len(videos)} annotated video is too few: at least 2, one of them for validation"
        )

    def drawn(video: TrueVideo) -> str:
        return hashlib.sha256(f"{seed}:{video.name}".encode()).hexdigest()

    ordered = sorted(videos, key=drawn)
    count = min(max(1, round(share * len(videos))), len(videos) - 1)
    return ordered[count:], ordered[:count]


def finetune(
    network: SAM2Network,
    videos: Sequence[TrueVideo],
    out: Path,
    settings: FinetuneSettings = FinetuneSettings(),
    listener: Listener = Listener(),
) -> FinetuneReport:
    """Fine-tune a network on annotated videos.

    Args:
        network: float32 weights, on the device to train on; changed.
        videos: at least two, each with an object.
        out: gets `model.safetensors` (the best weights; its header names the
            network), `report.json`, and what a run that was stopped goes on
            from: the same call with the same settings and videos continues.

    Raises:
        ValueError: too few videos, annotations that do not fit them, or a network
            that is none of `CONFIGS`.
    """
    check_network_is_named(network)
    training, validation = split_videos(videos, settings.validation_share, settings.seed)
    out.mkdir(parents=True, exist_ok=True)
    prepared = prepare_videos(
        training, out / "frames", network.image_size, progress=listener.prepared
    )
    before = {name: value.detach().clone() for name, value in network.state_dict().items()}
    manner = _EMBEDDED if network.config.name == "demo" else _PUBLISHED
    settings = replace(
        settings,
        learning_rate=settings.learning_rate or manner.learning_rate,
        general_share=(
            manner.general_share if settings.general_share is None else settings.general_share
        ),
    )
    trainer = Trainer(
        network, _schedule(settings), out / "run",
        prompt_mix=PromptMix(box=0.4, point=0.35), loss_weights=manner.loss_weights,
        spoiled_share=manner.spoiled_share,
        dtype=default_dtype(network.device),
    )
    trainer.resume()
    history = [line for line in _read_history(out) if line.step <= trainer.step]

    def judge() -> None:
        weights = _mean_weights(before, trainer.average, settings.new_share)
        judgement = _judge(trainer, weights, validation, settings)
        is_best = all(judgement.region_and_contour > j.region_and_contour for j in history)
        if is_best:
            save_finetuned(out / FINETUNED_FILE_NAME, weights, network=network.config.name)
        history.append(judgement)
        _write_report(out, report(), settings)
        listener.judged(judgement)

    def report() -> FinetuneReport:
        return FinetuneReport(
            network.config.name, tuple(v.name for v in training),
            tuple(v.name for v in validation), tuple(history), out / FINETUNED_FILE_NAME,
        )

    if not history:
        judge()
    batches = _batches(network.image_size, prepared, settings, start=trainer.step)
    while trainer.step < settings.steps and not listener.is_cancelled():
        if len(history) - 1 - history.index(report().best) >= settings.patience:
            break
        every = settings.evaluate_every
        target = min((trainer.step // every + 1) * every, settings.steps)
        trainer.train(batches, report=listener.trained, until_step=target)
        judge()
    return report()


def _batches(
    image_size: int, videos: Sequence[PreparedVideo], settings: FinetuneSettings, *, start: int
) -> Iterator[ClipBatch]:
    """The batches of the steps from `start` on, general clips' spread among the user's."""
    share = settings.general_share

    def general_before(step: int) -> int:
        return int(step * share)

    own = video_clip_batches(
        videos, image_size,
        VideoClipSettings(
            frame_count=settings.frame_count, clip_count=settings.clip_count,
            objects_per_clip=settings.objects_per_clip,
        ),
        seed=settings.seed, start=start - general_before(start),
        stop=settings.steps - general_before(settings.steps), workers=1,
    )
    if not share:
        return own
    general = step_batches(
        Materials.procedural(0),
        [_general_settings(image_size)],
        seed=settings.seed, start=general_before(start), stop=general_before(settings.steps),
    )
    return (
        next(general if general_before(step + 1) > general_before(step) else own)
        for step in range(start, settings.steps)
    )


def _general_settings(image_size: int) -> BatchSettings:
    # Longer clips than the user's need be: what spans many frames is forgotten first.
    return BatchSettings(
        image_size=image_size, frame_count=8, clip_count=2, objects_per_clip=3,
        mix=(("drawn", 1.0),), least_area=0.005, leave=0.3, occluder=0.5,
    )


def _schedule(settings: FinetuneSettings) -> Schedule:
    return Schedule(
        steps=settings.steps, learning_rate=settings.learning_rate,
        warmup_steps=min(20, settings.steps),
        final_fraction=0.1, weight_decay=0.01, ema_decay=0.98, seed=settings.seed,
        frozen=() if settings.train_encoder else (_ENCODER,),
        slowed=(_ENCODER,) if settings.train_encoder else (),
    )


def _mean_weights(
    before: Mapping[str, torch.Tensor], new: Mapping[str, torch.Tensor], new_share: float
) -> dict[str, torch.Tensor]:
    return {
        name: before[name].lerp(value, new_share) if value.is_floating_point() else value
        for name, value in new.items()
    }


def _judge(
    trainer: Trainer,
    weights: Mapping[str, torch.Tensor],
    videos: Sequence[TrueVideo],
    settings: FinetuneSettings,
) -> Judgement:
    judged = copy.deepcopy(trainer.network)
    judged.load_state_dict(weights)
    judged = judged.to(default_dtype(judged.device)).eval().requires_grad_(False)
    predictor = SAM2VideoPredictor(judged, PredictorOptions(**VIDEO_POSTPROCESSING))
    results: list[ObjectResult] = list(evaluate(predictor, videos, settings.prompt))
    if not results:
        names = ", ".join(video.name for video in videos)
        raise ValueError(f"no object can be judged on the validation videos {names}")
    return Judgement(
        trainer.step,
        float(np.mean([result.region for result in results])),
        float(np.mean([result.contour for result in results])),
    )


def _write_report(out: Path, report: FinetuneReport, settings: FinetuneSettings) -> None:
    document = {
        "network": report.network,
        "settings": asdict(settings),
        "training_videos": report.training_videos,
        "validation_videos": report.validation_videos,
        "before": asdict(report.before),
        "best": asdict(report.best),
        "history": [asdict(judgement) for judgement in report.history],
    }
    partial = out / ".report.json.partial"
    partial.write_text(json.dumps(document, indent=1) + "\n")
    os.replace(partial, out / _REPORT)


def _read_history(out: Path) -> list[Judgement]:
    if not (out / _REPORT).is_file():
        return []
    return [Judgement(**line) for line in json.loads((out / _REPORT).read_text())["history"]]


def check_network_is_named(network: SAM2Network) -> None:
    """Raises ValueError for a network that a fine-tuned file could not name."""
    if CONFIGS.get(network.config.name) != network.config:
        raise ValueError(
            f"network {network.config.name!r} is none of {', '.join(CONFIGS)}: "
            "its fine-tuned weights could not be loaded by name"
        )
