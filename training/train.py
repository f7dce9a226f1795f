"""Train the bundled checkpoint from nothing.

    python -m training.train --out OUT --state STATE             # the whole, in one go
    python -m training.train --out OUT --state STATE --minutes 8 # again and again until it says that it is done

Scenes are drawn from seeds and rendered as they are needed; a part that was stopped goes on at the step where it
stopped. With `--compile` one H100 takes 14 and a half minutes. Writes the checkpoint, as bfloat16 safetensors in pieces
under 15 MB, and `curves.json`, from which `python -m training.curves` draws the model card's picture.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from scipy.stats import spearmanr
from torch import Tensor
from transformers import Qwen2VLForConditionalGeneration

from settings import load_settings
from training.architecture import save_companions, small_config
from training.batches import (
    BUCKETS,
    IGNORED,
    Bucket,
    Layout,
    Shots,
    ShotSource,
    build_layout,
    corpus,
    questions_of,
    score_targets,
    stream,
)
from training.film.truth import ATTRIBUTES
from training.forward import Layer, compile_layers, read, through_layer
from training.muon import Muon
from training.tokenizer import train_tokenizer

VOCABULARY = 2048
SHARD_SIZE = "15MB"
HELD_OUT = 1_000_000_000  # seeds from here on are never trained on
HELD_OUT_SHOTS = 512
SHOWN_EVERY, JUDGED_EVERY = 25, 250


@dataclass(frozen=True, slots=True)
class Plan:
    """How the training goes.

    Attributes:
        steps: in all.
        batch: shots of a step (of the commonest picture size).
        chunk: shots rendered together.
        matrix_rate: learning rate of the matrices (Muon).
        other_rate: learning rate of embeddings, biases and norms (AdamW).
        warm_up: steps over which the rates rise.
        decay: weight decay of the matrices.
        seed: of the weights; scenes have seeds of their own.
    """

    steps: int = 5250
    batch: int = 256
    chunk: int = 4096
    matrix_rate: float = 2e-3
    other_rate: float = 1.5e-3
    warm_up: int = 200
    decay: float = 0.05
    seed: int = 1

    def rate_at(self, step: int) -> float:
        """Share of the full rate: a rise, then a half cosine to nothing."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        return 0.5 + 0.5 * math.cos(math.pi * (step - self.warm_up) / (self.steps - self.warm_up))


class Trainer:
    """One training run.

    Args:
        plan: how it goes.
        device: where it runs.
    """

    def __init__(self, plan: Plan, device: torch.device | str) -> None:
        self.plan = plan
        self.device = torch.device(device)
        self.attributes = load_settings(environ={}).attributes
        self.tokenizer = train_tokenizer(corpus(self.attributes), VOCABULARY)
        torch.manual_seed(plan.seed)
        config = small_config(self.tokenizer)
        self.model: Any = Qwen2VLForConditionalGeneration(config).to(self.device)
        self.layer: Layer = through_layer
        self.source = ShotSource(self.tokenizer, self.device)
        self.questions = questions_of(self.tokenizer, self.attributes, config.image_token_id)
        self.optimizers = _optimizers(self.model, plan)
        self.layouts: dict[Bucket, Layout] = {}
        self.step = 0
        self.curves: list[dict[str, Any]] = []
        self.held_out, _ = self.source.render(
            HELD_OUT, HELD_OUT_SHOTS if self.device.type == "cuda" else 32, BUCKETS[0]
        )

    def layout(self, bucket: Bucket) -> Layout:
        """The layout of a shape, made once."""
        if bucket not in self.layouts:
            self.layouts[bucket] = build_layout(self.model, self.questions, bucket, self.device)
        return self.layouts[bucket]

    def losses(self, bucket: Bucket, shots: Shots) -> tuple[Tensor, Tensor]:
        """Cross entropy of the scores, and of the caption's tokens."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            wholes, digits, words = read(self.model, self.layout(bucket), shots.film, shots.captions, self.layer)
        one, tenths = score_targets(shots.scores.flatten(1))
        numbers = self.questions.digits
        whole_log, digit_log = wholes.float().log_softmax(-1), digits.float().log_softmax(-1)
        whole_loss = -((1 - one) * whole_log[..., numbers[0]] + one * whole_log[..., numbers[1]])
        digit_loss = -(tenths * digit_log[..., numbers]).sum(-1)
        caption_loss = F.cross_entropy(words.float().flatten(0, 1), shots.captions.flatten(), ignore_index=IGNORED)
        return (whole_loss + digit_loss).mean(), caption_loss

    def train_step(self, bucket: Bucket, shots: Shots) -> tuple[Tensor, Tensor]:
        """One step of the optimizers."""
        rate = self.plan.rate_at(self.step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * group["full_rate"]
        score_loss, caption_loss = self.losses(bucket, shots)
        (score_loss + caption_loss).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return score_loss.detach(), caption_loss.detach()

    @torch.no_grad()
    def judge(self) -> dict[str, Any]:
        """Held-out scenes: rank correlation of each attribute, and the share of caption words that are right."""
        predicted, right, words = [], 0, 0
        for rows in torch.split(torch.arange(len(self.held_out.film), device=self.device), 128):
            shots = self.held_out.rows(rows)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                wholes, digits, said = read(self.model, self.layout(BUCKETS[0]), shots.film, shots.captions, self.layer)
            predicted.append(self._expected(wholes.float(), digits.float()).reshape(shots.scores.shape))
            known = shots.captions != IGNORED
            right += int(((said.argmax(-1) == shots.captions) & known).sum())
            words += int(known.sum())
        answers, truth = torch.cat(predicted).mean(1).cpu().numpy(), self.held_out.scores.mean(1).cpu().numpy()
        ranks = {name: float(spearmanr(answers[:, a], truth[:, a]).statistic) for a, name in enumerate(ATTRIBUTES)}
        return {"step": self.step, "spearman": ranks, "caption_words": right / max(1, words)}

    def _expected(self, wholes: Tensor, digits: Tensor) -> Tensor:
        numbers = self.questions.digits
        one = wholes[..., numbers[:2]].softmax(-1)[..., 1]
        tenths = digits[..., numbers].softmax(-1) @ (torch.arange(10, device=wholes.device) / 10)
        return one + (1 - one) * tenths

    def save(self, folder: Path) -> None:
        """Write the checkpoint as transformers reads it."""
        folder.mkdir(parents=True, exist_ok=True)
        copy = Qwen2VLForConditionalGeneration(self.model.config).to(torch.bfloat16)
        copy.load_state_dict(
            {name: weights.to(torch.bfloat16).cpu() for name, weights in self.model.state_dict().items()}
        )
        copy.save_pretrained(folder, max_shard_size=SHARD_SIZE)
        save_companions(folder, self.tokenizer)
        (folder / "curves.json").write_text(json.dumps(self.curves) + "\n")

    def store(self, file: Path) -> None:
        """Everything that is needed to go on."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "curves": self.curves,
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        half_written = file.with_name(f"{file.name}.new")  # a part that is ended here does not cost the one before
        torch.save(state, half_written)
        half_written.replace(file)

    def restore(self, file: Path) -> None:
        """Go on where a part stopped."""
        state = torch.load(file, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, its in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(its)
        self.step, self.curves = state["step"], state["curves"]


def _optimizers(model: Any, plan: Plan) -> list[torch.optim.Optimizer]:
    """Muon for the matrices within the layers, AdamW for the rest."""
    hidden: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for name, weights in model.named_parameters():
        inside = weights.ndim == 2 and "embed_tokens" not in name and "lm_head" not in name
        (hidden if inside else rest).append(weights)
    muon = Muon(hidden, lr=plan.matrix_rate, weight_decay=plan.decay)
    adam = torch.optim.AdamW(rest, lr=plan.other_rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    for optimizer in (muon, adam):
        for group in optimizer.param_groups:
            group["full_rate"] = group["lr"]
    return [muon, adam]


def train(trainer: Trainer, minutes: float) -> bool:
    """Train until the plan's end or until the time is up.

    Returns:
        Whether the plan's end was reached.
    """
    began = shown = time.monotonic()
    for bucket, shots in _from_step(trainer):
        score_loss, caption_loss = trainer.train_step(bucket, shots)
        if trainer.step % SHOWN_EVERY == 0:
            losses = {"step": trainer.step, "scores": float(score_loss), "caption": float(caption_loss)}
            trainer.curves.append(losses)
            pace = (time.monotonic() - shown) / SHOWN_EVERY * 1000
            shares = f"scores {losses['scores']:.3f}, caption {losses['caption']:.3f}"
            print(f"step {trainer.step}: {shares}, {pace:.0f} ms a step", flush=True)
            shown = time.monotonic()
        if trainer.step % JUDGED_EVERY == 0:
            trainer.curves.append(trainer.judge())
            print(trainer.curves[-1], flush=True)
        if trainer.step >= trainer.plan.steps:
            return True
        if time.monotonic() - began > 60 * minutes:
            return False
    raise AssertionError("the stream has no end")


def _from_step(trainer: Trainer) -> Iterator[tuple[Bucket, Shots]]:
    # A part begins with chunks that no earlier part used: seeds are numbered by step, and a chunk serves several steps.
    return stream(trainer.source, trainer.step, chunk=trainer.plan.chunk, batch=trainer.plan.batch)


def main() -> None:
    """Train, go on, or finish."""
    plan = Plan()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--state", type=Path, required=True, help="file that a stopped run goes on from")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this long")
    parser.add_argument("--steps", type=int, default=plan.steps)
    parser.add_argument("--batch", type=int, default=plan.batch)
    parser.add_argument("--chunk", type=int, default=plan.chunk)
    parser.add_argument("--compile", action="store_true", help="fuse the layers; pays on a GPU")
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = True
    device = "cuda" if torch.cuda.is_available() else "cpu"
    trainer = Trainer(Plan(steps=arguments.steps, batch=arguments.batch, chunk=arguments.chunk), device)
    parameters = sum(weights.numel() for weights in trainer.model.parameters())
    print(f"{parameters / 1e6:.2f} M parameters, {len(trainer.tokenizer)} tokens, on {device}", flush=True)
    if arguments.compile:
        trainer.layer = compile_layers(trainer.model)
    if arguments.state.exists():
        trainer.restore(arguments.state)
    done = train(trainer, arguments.minutes)
    trainer.store(arguments.state)
    trainer.save(arguments.out)
    print("done" if done else f"stopped at step {trainer.step}; run it again to go on", flush=True)


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
