"""The training loop: deterministic by seed, resumable, its best weights always on disk."""

from __future__ import annotations

import json
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable, Iterator

import torch
from torch import nn

from sam2_model.network import SAM2Network
from sam2_model.training.losses import LossWeights
from sam2_model.training.objective import ClipBatch, PromptMix, StepResult, run_clips

_PART_SEEDS = 1_000_000_007
"""How far the seeds of a batch's parts are apart."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long to train and how fast to learn."""

    steps: int
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    final_fraction: float = 0.02
    """The learning rate at the end, as a share of `learning_rate`."""
    weight_decay: float = 0.05
    gradient_clip: float = 1.0
    ema_decay: float = 0.998
    seed: int = 0
    frozen: tuple[str, ...] = ()
    """Parameters whose names begin with one of these stay as they are."""
    slowed: tuple[str, ...] = ()
    """Parameters whose names begin with one of these learn at `slowed_by` of the rate."""
    slowed_by: float = 0.1

    def rate_at(self, step: int) -> float:
        """Linear warm-up, then a cosine down to the final fraction."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return self.learning_rate * (
            self.final_fraction + (1 - self.final_fraction) * cosine
        )


def freeze(network: nn.Module, prefixes: tuple[str, ...]) -> None:
    """Exclude the parameters whose names begin with a prefix; include all others.

    Raises:
        ValueError: a prefix that no parameter's name begins with.
    """
    names = [name for name, _ in network.named_parameters()]
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in names):
            raise ValueError(f"frozen: no parameter's name begins with {prefix!r}")
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not name.startswith(prefixes))


def parameter_groups(network: nn.Module, schedule: Schedule) -> list[dict]:
    """The parameters that learn, by weight decay and share of the learning rate.

    Matrices and kernels decay; biases, norms, embeddings and scales do not.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        is_matrix = parameter.ndim >= 2 and name.endswith("weight")
        is_embedding = "embed" in name or "token" in name
        decay = schedule.weight_decay if is_matrix and not is_embedding else 0.0
        share = schedule.slowed_by if name.startswith(schedule.slowed) else 1.0
        groups.setdefault((decay, share), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "rate_share": share}
        for (decay, share), parameters in groups.items()
    ]


class Trainer:
    """Holds the network, its moving average and the optimizer; saves and resumes them."""

    def __init__(
        self,
        network: SAM2Network,
        schedule: Schedule,
        folder: Path,
        *,
        prompt_mix: PromptMix = PromptMix(),
        loss_weights: LossWeights = LossWeights(),
        spoiled_share: float = 0.0,
        dtype: torch.dtype = torch.float32,
        parts: int = 1,
    ) -> None:
        """
        Args:
            parts: how many threads share a batch's clips. Operations of a small network
                are too short for several cores to share one; each takes some clips instead.
        """
        self.network = network.train()
        self.parts = parts
        self._threads = ThreadPoolExecutor(
            parts, initializer=torch.set_num_threads,
            initargs=(max(1, torch.get_num_threads() // parts),),
        )
        self.dtype = dtype
        """What the network computes in; weights, losses and averages stay float32."""
        self.schedule = schedule
        self.folder = folder
        self.prompt_mix = prompt_mix
        self.loss_weights = loss_weights
        self.spoiled_share = spoiled_share
        self.step = 0
        self.average = {k: v.detach().clone() for k, v in network.state_dict().items()}
        freeze(network, schedule.frozen)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(network, schedule), lr=schedule.learning_rate
        )
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoint_path(self) -> Path:
        return self.folder / "checkpoint.pt"

    def resume(self) -> bool:
        """Continue from the checkpoint in the folder, if there is one.

        Raises:
            ValueError: it is of a run with another schedule.
        """
        if not self.checkpoint_path.exists():
            return False
        state = torch.load(self.checkpoint_path, weights_only=True, map_location="cpu")
        if state["schedule"] != asdict(self.schedule):
            raise ValueError(
                f"{self.checkpoint_path} is of a run with another schedule, "
                f"{state['schedule']}: train to another folder, or delete it"
            )
        self.network.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = {key: v.to(self.network.device) for key, v in state["average"].items()}
        self.step = state["step"]
        return True

    def start_from(self, state_dict: dict[str, torch.Tensor]) -> None:
        """Begin with given weights, at step 0. What they lack stays as it is made."""
        missing, unexpected = self.network.load_state_dict(state_dict, strict=False)
        if unexpected:
            raise ValueError(f"weights are of another network: it has no {unexpected[0]!r}")
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}

    def save(self) -> None:
        """Write the checkpoint in one atomic step."""
        state = {
            "model": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "schedule": asdict(self.schedule),
        }
        partial = self.checkpoint_path.with_suffix(".part")
        torch.save(state, partial)
        os.replace(partial, self.checkpoint_path)

    def train(
        self,
        batches: Iterator[ClipBatch],
        *,
        save_every: int = 100,
        report: Callable[[dict], None] = lambda line: None,
        until_step: int | None = None,
        until_time: float = math.inf,
    ) -> None:
        """Run to the schedule's end, one batch a step.

        Args:
            batches: must start at this trainer's step: it is the caller's seeded
                stream, so a resumed run sees the same data in the same order.
            save_every: steps from one checkpoint to the next; one is written at
                the end too.
            report: called after each step with what `log.jsonl` gets: the step,
                loss, IoUs (None where there was nothing to judge), seconds.
            until_step: stop there instead, to go on later.
            until_time: stop after the step that ends past this `time.monotonic()`.
        """
        last_step = min(until_step or self.schedule.steps, self.schedule.steps)
        log_path = self.folder / "log.jsonl"
        while self.step < last_step:
            started = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - started
            line = self._train_step(batch)
            line.update(
                seconds=round(time.perf_counter() - started, 3), waited=round(waited, 3)
            )
            with log_path.open("a") as log:
                log.write(json.dumps(line) + "\n")
            report(line)
            is_late = time.monotonic() >= until_time
            if self.step % save_every == 0 or self.step == last_step or is_late:
                self.save()
            if is_late:
                return

    def _train_step(self, batch: ClipBatch) -> dict:
        batch = batch.to(self.network.device)
        rate = self.schedule.rate_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate_share"]
        results = self._gradients(batch)
        norm = nn.utils.clip_grad_norm_(
            self.network.parameters(), self.schedule.gradient_clip
        )
        if torch.isfinite(norm):
            self.optimizer.step()
        self._update_average()
        self.step += 1

        def mean(name: str) -> float | None:
            values = [value for result in results for value in getattr(result, name)]
            return round(sum(values) / len(values), 4) if values else None

        return {
            "step": self.step,
            "loss": round(sum(result.loss.item() for result in results) / len(results), 4),
            "rate": rate,
            "gradient_norm": round(norm.item(), 3),
            "prompt_iou": mean("prompt_iou"),
            "track_iou": mean("track_iou"),
            "presence": mean("presence_accuracy"),
        }

    def _gradients(self, batch: ClipBatch) -> list[StepResult]:
        """Set the gradient of the batch's loss; what came of each of its parts."""
        learning = [p for p in self.network.parameters() if p.requires_grad]

        def of_part(number: int, part: ClipBatch) -> tuple[StepResult, tuple]:
            seed = self.schedule.seed * 1_000_003 + self.step + number * _PART_SEEDS
            with torch.autocast(
                self.network.device.type, self.dtype, enabled=self.dtype != torch.float32
            ):
                result = run_clips(
                    self.network,
                    part,
                    torch.Generator().manual_seed(seed),
                    prompt_mix=self.prompt_mix,
                    weights=self.loss_weights,
                    spoiled_share=self.spoiled_share,
                )
            # Not `backward`, which adds to what other threads have found.
            found = torch.autograd.grad(result.loss, learning, allow_unused=True)
            result.loss = result.loss.detach()
            return result, found

        parts = batch.split(self.parts)
        answers = list(self._threads.map(of_part, range(len(parts)), parts))
        for parameter, *found in zip(learning, *(gradients for _, gradients in answers)):
            known = [gradient for gradient in found if gradient is not None]
            parameter.grad = sum(known) / len(parts) if known else None
        return [result for result, _ in answers]

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early on a long memory would keep the random start alive.
        decay = min(self.schedule.ema_decay, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            average = self.average[name]
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)
