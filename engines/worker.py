"""The engine process: owns one copy of the model, answers batches, and dies alone when its GPU does."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from engines.arena import ArenaReader
from engines.base import EngineInfo, ShotPictures
from engines.messages import receive, send
from engines.probe import probe_shot, warn_of_few_numbers
from engines.stations import Answer, Job, Stations, pass_through
from engines.watchdog import BEAT_SECONDS, Beat, Spent
from logs import log_to_terminal
from model_loader import PictureSpec, Plan, load_failures
from processes import end_with_parent, name_process, return_freed_memory
from qwen_shots.errors import CannotLoad, NotANumber
from qwen_shots.fusion import KEY_FRAMES
from settings import Settings

log = logging.getLogger(__name__)

# Tokens in one batch, of pictures, instruction and questions: a shot of thumbnails or one with many attributes costs
# memory by its words. On the CPU a batch saves nothing, so it only has to be short enough to keep waits fair.
CPU_BATCH_TOKENS = 6_144

# After each batch it would cost some 2 % of the time (benchmarks/LOG.md): returned memory has to be zeroed again.
TRIM_SECONDS = 2.0

# They reach the whole process group, but the server decides when its engines end.
IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded and has answered a first shot.

    Attributes:
        info: what it runs on.
        pictures: how the model wants its pictures.
        replicas: engine processes that the plan asks for in all.
        batch_tokens: tokens that one batch may hold.
        text_tokens: what a shot costs a batch beside its pictures' tokens, by their number: of one picture first.
    """

    info: EngineInfo
    pictures: PictureSpec
    replicas: int
    batch_tokens: int
    text_tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """The model can't be loaded; `detail` is for the operator."""

    detail: str


@dataclass(frozen=True, slots=True)
class Work:
    """Shots to look at together, and the tokens of all of them."""

    number: int
    shots: tuple[ShotPictures, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Answers:
    """One answer a shot, in order, and what the longest forward pass took."""

    number: int
    answers: tuple[Answer, ...]
    spent: Spent


@dataclass(frozen=True, slots=True)
class Hungry:
    """The engine has most of a batch behind it: the next one would come just in time."""

    number: int


@dataclass(frozen=True, slots=True)
class Crowded:
    """A batch of so many tokens did not fit into the GPU's memory."""

    tokens: int


class _Sender:
    """Sends from several threads, one message at a time."""

    def __init__(self, pipe: Connection, timed: _Timed, gpu_bytes: Callable[[], int] | None) -> None:
        self._pipe = pipe
        self._timed = timed
        self._gpu_bytes = gpu_bytes
        self._lock = threading.Lock()

    def send(self, message: Answers | Beat | Hungry | Crowded) -> None:
        with self._lock:
            send(self._pipe, message)

    def beat_for_ever(self) -> None:
        with contextlib.suppress(OSError):  # the server is gone, and the lifeline ends this process
            while True:
                held = self._gpu_bytes() if self._gpu_bytes else None
                self.send(Beat(time.process_time(), self._timed.looks, held))
                time.sleep(BEAT_SECONDS)


class _Timed:
    """Stations whose forward passes are counted and timed."""

    def __init__(self, stations: Stations) -> None:
        self._stations = stations
        self.prepare = stations.prepare
        self.finish = stations.finish
        self.looks = 0
        self._longest = Spent(0, 0)

    def run(self, prepared: Any, ask: Callable[[], None] | None = None) -> Any:
        """See `Stations.run`."""
        self.looks += 1
        began = _clocks()
        try:
            return self._stations.run(prepared, ask)
        finally:
            spent = _clocks() - began
            self._longest = max(self._longest, spent, key=lambda each: each.wall)

    def take_longest(self) -> Spent:
        """The longest forward pass since this was asked last."""
        longest, self._longest = self._longest, Spent(0, 0)
        return longest


class _Trimmer:
    """Returns the memory that batches have left free in the heap to the system, every few seconds at most."""

    def __init__(self) -> None:
        self._due = time.monotonic()

    def trim(self) -> None:
        """Call it after each batch."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + TRIM_SECONDS
            return_freed_memory()


def _gpu_bytes() -> int:
    """GPU memory that torch holds in this process, on all of its GPUs; asks no driver, which may be stuck."""
    import torch

    return sum(torch.cuda.memory_reserved(device) for device in range(torch.cuda.device_count()))


def _clocks() -> Spent:
    return Spent(time.monotonic(), time.process_time())


def main(pipe: Connection, settings: Settings, rank: int, arena: ArenaReader | None = None) -> None:
    """Load, then answer until the server closes the pipe or dies.

    Args:
        pipe: the way to the server.
        settings: the whole configuration.
        rank: which engine this is, from 0.
        arena: where pictures may lie.
    """
    name_process(f"qwen-engine-{rank}")
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED_SIGNALS)  # what starts this process holds them back
    # The pipe would tell it too, but not in the middle of a load or a batch.
    end_with_parent(lambda: os._exit(1))
    log_to_terminal(settings.server.log_format)
    try:
        with load_failures(settings.model.name):
            stations, ready = _load(settings, rank)
    except CannotLoad as error:
        send(pipe, Failed(error.detail))
        return
    send(pipe, ready)
    timed = _Timed(stations)
    sender = _Sender(pipe, timed, _gpu_bytes if ready.info.device == "cuda" else None)
    threading.Thread(target=sender.beat_for_ever, name="beat", daemon=True).start()
    pass_through(timed, _jobs(pipe, arena, timed, sender, on_gpu=ready.info.device == "cuda"))


def _jobs(
    pipe: Connection, arena: ArenaReader | None, timed: _Timed, sender: _Sender, *, on_gpu: bool
) -> Iterator[Job]:
    """Yield what the server sends, until it closes the pipe.

    On the CPU there is nothing to ask for early, and a batch's tensors lie in the heap.
    """
    trimmer = None if on_gpu else _Trimmer()
    while (work := _receive(pipe, arena)) is not None:

        def done(answers: Sequence[Answer], number: int = work.number) -> None:
            sender.send(Answers(number, tuple(answers), timed.take_longest()))
            if trimmer:
                trimmer.trim()

        hungry = partial(sender.send, Hungry(work.number)) if on_gpu else None
        yield Job(work.shots, hungry, done, crowded=partial(sender.send, Crowded(work.tokens)))


def _receive(pipe: Connection, arena: ArenaReader | None) -> Work | None:
    try:
        work: Work | None = receive(pipe, arena)
    except (EOFError, OSError):
        return None
    return work


def _begin_kernels(settings: Settings, folder: Path, plan: Plan, rank: int) -> threading.Thread | None:
    """Build the GPU's kernels meanwhile, where the model is whole on one."""
    if plan.device != "cuda" or plan.shard:
        return None
    import model_loader
    from engines.qwen2vl import building

    return building.begin(folder, model_loader.choose_dtype(settings.model.dtype, plan.device), rank)


def _load(settings: Settings, rank: int) -> tuple[Stations, Ready]:
    # Here, not above: the server's process imports this module and stays without torch.
    import model_loader

    began = time.monotonic()
    folder = model_loader.find_files(settings.model.name)
    if rank == 0:
        model_loader.read_ahead(folder)
    hashing = ThreadPoolExecutor(1).submit(model_loader.hash_weights, folder) if rank == 0 else None
    plan = model_loader.make_plan(settings.model, folder)
    kernels = _begin_kernels(settings, folder, plan, rank)
    # Some seconds on a slow machine.
    from engines.budget import find_room
    from engines.runner import ModelRunner

    loaded = model_loader.load(settings.model, folder, plan, rank)
    if kernels:
        kernels.join()
    loaded_at = time.monotonic()
    runner = ModelRunner(loaded, settings.attributes, settings.model.max_caption_tokens)
    spec = loaded.pictures
    room = find_room(loaded, runner, settings.model.max_frame_tokens)
    tokens = CPU_BATCH_TOKENS if plan.device == "cpu" else room.batch_tokens
    (answer,) = runner.look([probe_shot(spec)])
    if isinstance(answer, NotANumber):
        # Else the server would be healthy and every shot an error.
        raise CannotLoad(f"model.name: {settings.model.name} is loaded but does not answer: {answer.detail}")
    warn_of_few_numbers(f"model.name {settings.model.name}", answer.readings, settings.processing.least_mass)
    runner.backbone.warm_up(max(tokens, room.longest_shot), room.longest_shot)
    log.info("weights loaded in %.1f s, warm after %.1f s more", loaded_at - began, time.monotonic() - loaded_at)
    info = EngineInfo(
        settings.model.name,
        plan.device,
        plan.gpu_count,
        plan.gpu_memory_bytes,
        weights=hashing.result() if hashing else None,
    )
    text_tokens = tuple(runner.backbone.text_tokens(pictures) for pictures in range(1, KEY_FRAMES + 1))
    return runner, Ready(info, spec, plan.replicas, tokens, text_tokens)
