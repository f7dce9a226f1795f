"""The engine process: owns one copy of the model, answers batches, and dies alone when its GPU does."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from engines.base import EngineInfo, ShotPictures, ShotReading
from engines.probe import probe_shot
from engines.watchdog import BEAT_SECONDS, Beat, Spent
from lifeline import end_with_parent
from logs import log_to_terminal
from model_loader import PictureSpec
from qwen_shots.errors import CannotLoad, OutOfMemory, QwenShotsError, ShotFailed
from settings import Settings

log = logging.getLogger(__name__)

Answer = ShotReading | QwenShotsError
Look = Callable[[Sequence[ShotPictures]], Sequence[Answer]]

# Tokens in one batch, of pictures, instruction and questions: a shot of thumbnails or one with many attributes costs
# memory by its words. On the CPU a batch saves nothing, so it only has to be short enough to keep waits fair; on a GPU
# this is some 30 shots of three full pictures and six attributes.
CPU_BATCH_TOKENS = 6_144
GPU_BATCH_TOKENS = 36_864


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded and has answered a first shot.

    Attributes:
        info: what it runs on.
        pictures: how the model wants its pictures.
        replicas: engine processes that the plan asks for in all.
        batch_tokens: tokens that one batch may hold.
        text_tokens: tokens of a shot's text, beside what comes with each picture.
        question_tokens: tokens of the marks and questions that come with each picture.
    """

    info: EngineInfo
    pictures: PictureSpec
    replicas: int
    batch_tokens: int
    text_tokens: int
    question_tokens: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The model can't be loaded; `detail` is for the operator."""

    detail: str


@dataclass(frozen=True, slots=True)
class Work:
    """Shots to look at together."""

    number: int
    shots: tuple[ShotPictures, ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """One answer a shot, in order, and what the longest forward pass took."""

    number: int
    answers: tuple[Answer, ...]
    spent: Spent


class _Sender:
    """Sends from two threads, one message at a time."""

    def __init__(self, pipe: Connection, timed: _Timed, gpu_bytes: Callable[[], int] | None) -> None:
        self._pipe = pipe
        self._timed = timed
        self._gpu_bytes = gpu_bytes
        self._lock = threading.Lock()

    def send(self, message: Answers | Beat) -> None:
        with self._lock:
            self._pipe.send(message)

    def beat_for_ever(self) -> None:
        with contextlib.suppress(OSError):  # the server is gone, and the lifeline ends this process
            while True:
                held = self._gpu_bytes() if self._gpu_bytes else None
                self.send(Beat(time.process_time(), self._timed.looks, held))
                time.sleep(BEAT_SECONDS)


class _Timed:
    """A look whose forward passes are counted and timed."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self.looks = 0
        self._longest = Spent(0, 0)

    def __call__(self, shots: Sequence[ShotPictures]) -> Sequence[Answer]:
        self.looks += 1
        began = _clocks()
        try:
            return self._look(shots)
        finally:
            spent = _clocks() - began
            self._longest = max(self._longest, spent, key=lambda each: each.wall)

    def take_longest(self) -> Spent:
        """The longest forward pass since this was asked last."""
        longest, self._longest = self._longest, Spent(0, 0)
        return longest


def _gpu_bytes() -> int:
    """GPU memory that torch holds in this process, on all of its GPUs; asks no driver, which may be stuck."""
    import torch

    return sum(torch.cuda.memory_reserved(device) for device in range(torch.cuda.device_count()))


def _clocks() -> Spent:
    return Spent(time.monotonic(), time.process_time())


def main(pipe: Connection, settings: Settings, rank: int) -> None:
    """Load, then answer until the server closes the pipe or dies."""
    # Ctrl-C and SIGTERM reach the whole process group. The server decides when its engines end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # The pipe would tell it too, but not in the middle of a load or a batch.
    end_with_parent(lambda: os._exit(1))
    log_to_terminal(settings.server.log_format)
    try:
        look, ready = _load(settings, rank)
    except CannotLoad as error:
        pipe.send(Failed(error.detail))
        return
    except Exception as error:
        log.exception("loading the model failed")
        pipe.send(Failed(f"loading {settings.model.name} failed with {type(error).__name__}: {error}"))
        return
    pipe.send(ready)
    timed = _Timed(look)
    sender = _Sender(pipe, timed, _gpu_bytes if ready.info.device == "cuda" else None)
    threading.Thread(target=sender.beat_for_ever, name="beat", daemon=True).start()
    while (work := _receive(pipe)) is not None:
        answers = tuple(answer_all(timed, work.shots))
        sender.send(Answers(work.number, answers, timed.take_longest()))


def _receive(pipe: Connection) -> Work | None:
    try:
        work: Work | None = pipe.recv()
    except (EOFError, OSError):
        return None
    return work


def _load(settings: Settings, rank: int) -> tuple[Look, Ready]:
    # Here, not above: the server's process imports this module and stays without torch.
    import model_loader
    from engines.runner import ModelRunner

    folder = model_loader.find_files(settings.model.name)
    plan = model_loader.make_plan(settings.model, folder)
    loaded = model_loader.load(settings.model, folder, plan, rank)
    runner = ModelRunner(loaded, settings.attributes, settings.model.max_caption_tokens)
    (answer,) = runner.look([probe_shot(loaded.pictures)])
    if isinstance(answer, QwenShotsError):
        # Else the server would be healthy and every shot an error.
        raise CannotLoad(f"model.name: {settings.model.name} is loaded but does not answer: {answer.detail}")
    info = EngineInfo(settings.model.name, plan.device, plan.gpu_count, plan.gpu_memory_bytes)
    tokens = CPU_BATCH_TOKENS if plan.device == "cpu" else GPU_BATCH_TOKENS
    question_tokens = runner.text_tokens(2) - runner.text_tokens(1)
    text_tokens = runner.text_tokens(1) - question_tokens
    return runner.look, Ready(
        info, loaded.pictures, plan.replicas, tokens, text_tokens=text_tokens, question_tokens=question_tokens
    )


def answer_all(look: Look, shots: Sequence[ShotPictures]) -> list[Answer]:
    """Look at a batch; where it fails, halve it, so that only the shot that is to blame gets an error.

    Raises:
        RuntimeError: the GPU is beyond use. The process ends with it, and the server starts another.
    """
    try:
        return list(look(shots))
    except Exception as error:
        kind = type(error).__name__
        if kind == "AcceleratorError" or "CUDA error" in str(error):
            raise
        if len(shots) == 1:
            log.exception("a shot failed")
            if kind == "OutOfMemoryError":
                return [OutOfMemory("not even the shot alone fits; lower model.max_frame_tokens, or send it later")]
            return [ShotFailed("the shot could not be analysed: the model failed on it; the server's log says more")]
    # Outside the except block: there the exception would still hold the failed batch's memory.
    gc.collect()
    half = len(shots) // 2
    return [*answer_all(look, shots[:half]), *answer_all(look, shots[half:])]
