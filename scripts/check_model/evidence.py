"""Asks a checkpoint about the scenes, with the server's own loader and runner."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

import model_loader
from engines.base import ShotPictures, ShotReading
from engines.budget import PADDED_TOKENS
from engines.pixels import fit_shot, token_count
from engines.runner import ModelRunner
from engines.stations import Answer, answer_all
from engines.worker import CPU_BATCH_TOKENS
from scripts.check_model import scenes
from scripts.check_model.checks import Evidence, other_dtype
from settings import Settings

# Qwen may answer in Chinese.
SENTENCE_ENDS = (".", "!", "?", "…", '"', "。", "！", "？")


class Subject:
    """One checkpoint, loaded in one type.

    Args:
        settings: which model, device, type and attributes.

    Raises:
        CannotLoad: the model isn't there or can't be used.
    """

    def __init__(self, settings: Settings) -> None:
        folder = model_loader.find_files(settings.model.name)
        plan = model_loader.make_plan(settings.model, folder)
        say(f"loading {settings.model.name} on {plan.device}")
        self.device = plan.device
        self._loaded = model_loader.load(settings.model, folder, plan)
        self._runner = ModelRunner(self._loaded, settings.attributes, settings.model.max_caption_tokens)
        self._limits = settings.model
        self._batch_tokens = CPU_BATCH_TOKENS if plan.device == "cpu" else PADDED_TOKENS

    @property
    def dtype(self) -> str:
        """Its type, such as "bfloat16"."""
        return str(self._loaded.dtype).removeprefix("torch.")

    def bad_weights(self) -> int:
        """How many of its weights are NaN or infinite."""
        return sum(int((~torch.isfinite(weights)).sum()) for weights in self._loaded.model.parameters())

    def is_cut(self, caption: str) -> bool:
        """Whether a caption ran into the limit: about as many tokens as allowed, and no sentence's end."""
        tokens = len(self._loaded.tokenizer.encode(caption, add_special_tokens=False))
        # A token may be lost between the engine's text and this count: spaces and halves of characters are tidied.
        return tokens >= self._limits.max_caption_tokens - 1 and not caption.endswith(SENTENCE_ENDS)

    def ask(self, shots: Sequence[ShotPictures]) -> list[Answer]:
        """One answer a shot, asked in batches of the server's size."""
        fitted = [fit_shot(shot, self._loaded.pictures, self._limits.max_frame_tokens) for shot in shots]
        size = max(1, self._batch_tokens // max(map(self._tokens, fitted)))
        return [
            answer
            for start in range(0, len(fitted), size)
            for answer in answer_all(self._runner.look, fitted[start : start + size])
        ]

    def _tokens(self, shot: ShotPictures) -> int:
        seen = sum(token_count(picture, self._loaded.pictures) for picture in shot.pictures)
        return seen + self._runner.backbone.text_tokens(len(shot.pictures))


def say(text: str) -> None:
    """Progress, apart from the table."""
    print(text, file=sys.stderr, flush=True)


def gather(settings: Settings, *, quick: bool) -> Evidence:
    """Everything that the checks look at; `quick` leaves out what only the full list of checks needs.

    Raises:
        CannotLoad: the model isn't there or can't be used.
    """
    film = [scenes.film_shot(name) for name in scenes.FILM_SHOTS]
    seen = _examine(settings, film, quick=quick)
    return seen if quick else replace(seen, other_dtype=_ask_in_other_dtype(settings, film, seen.dtype))


def _examine(settings: Settings, film: Sequence[ShotPictures], *, quick: bool) -> Evidence:
    subject = Subject(settings)
    say(f"asking it about {len(film)} shots of a film and {len(scenes.EXPOSED_SHOTS)} exposure ladders")
    answers = subject.ask(film)
    seen = Evidence(
        attributes=tuple(settings.attributes),
        device=subject.device,
        dtype=subject.dtype,
        bad_weights=subject.bad_weights(),
        film=answers,
        cut=[isinstance(answer, ShotReading) and subject.is_cut(answer.caption) for answer in answers],
        exposure=[
            subject.ask([scenes.exposed(scenes.film_shot(name), stops) for stops in scenes.STOPS])
            for name in scenes.EXPOSED_SHOTS
        ],
    )
    return seen if quick else _examine_longer(subject, seen)


def _examine_longer(subject: Subject, seen: Evidence) -> Evidence:
    say(f"asking it about {len(scenes.PANNED_SHOTS)} pans and about shots one by one")
    speed = [
        subject.ask([scenes.panned(scenes.film_shot(name).pictures[0], speed) for speed in scenes.SPEEDS])
        for name in scenes.PANNED_SHOTS
    ]
    unequal = scenes.unequal_shots()
    alone: list[Answer] = []
    seconds = []
    for shot in unequal:
        began = time.perf_counter()
        alone += subject.ask([shot])
        seconds.append(time.perf_counter() - began)
    return replace(seen, speed=speed, together=subject.ask(unequal), alone=alone, seconds=seconds)


def _ask_in_other_dtype(settings: Settings, film: Sequence[ShotPictures], dtype: str) -> list[Answer]:
    """Load the checkpoint a second time. The first copy must be out of use, so that its memory is free."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    say(f"and once more in {other_dtype(dtype)}")
    model = settings.model.model_copy(update={"dtype": other_dtype(dtype)})
    return Subject(settings.model_copy(update={"model": model})).ask(film)
