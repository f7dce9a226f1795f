"""The three stations of a batch in an engine process, each of which may work on another batch meanwhile.

The host prepares, the device runs, the host finishes: while the GPU runs one batch, the next is being laid out and the
last being put into words. No torch here.
"""

from __future__ import annotations

import gc
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from engines.base import ShotPictures, ShotReading
from qwen_shots.errors import OutOfMemory, QwenShotsError, ShotFailed

log = logging.getLogger(__name__)

Answer = ShotReading | QwenShotsError
Look = Callable[[Sequence[ShotPictures]], Sequence[Answer]]


class Stations(Protocol):
    """What can look at a batch in three steps: `engines.runner.ModelRunner`."""

    def prepare(self, shots: Sequence[ShotPictures]) -> Any:
        """Before: on a thread of its own."""

    def run(self, prepared: Any, ask: Callable[[], None] | None = None) -> Any:
        """The device's part; asks for the next batch when that would come just in time."""

    def finish(self, prepared: Any, ran: Any) -> Sequence[Answer]:
        """After: on a thread of its own. One answer a shot."""


@dataclass(frozen=True, slots=True)
class OneStep:
    """A look that knows no stations."""

    look: Look

    def prepare(self, shots: Sequence[ShotPictures]) -> Sequence[ShotPictures]:
        """Nothing to do."""
        return shots

    def run(self, prepared: Sequence[ShotPictures], ask: Callable[[], None] | None = None) -> Any:
        """All of it."""
        return self.look(prepared)

    def finish(self, prepared: Sequence[ShotPictures], ran: Any) -> Sequence[Answer]:
        """Nothing to do."""
        answers: Sequence[Answer] = ran
        return answers


@dataclass(frozen=True, slots=True)
class Job:
    """A batch on its way.

    Attributes:
        shots: what is looked at.
        hungry: called when the next batch could be handed over, unless this one goes wrong.
        done: called with the answers, one a shot where nothing is wrong with the engine.
        crowded: called when the batch does not fit into the GPU's memory, though perhaps a part of it does.
    """

    shots: Sequence[ShotPictures]
    hungry: Callable[[], None] | None
    done: Callable[[Sequence[Answer]], None]
    crowded: Callable[[], None] = lambda: None


def pass_through(stations: Stations, jobs: Iterable[Job]) -> None:
    """Take jobs through the stations until there are no more; the device's part runs on the thread that calls.

    Raises:
        RuntimeError: the GPU is beyond use.
    """
    prepared: queue.Queue[tuple[Job, Any] | None] = queue.Queue(maxsize=1)
    threading.Thread(target=_prepare_all, args=(stations, jobs, prepared), name="prepare", daemon=True).start()
    with ThreadPoolExecutor(1, thread_name_prefix="finish") as finisher:
        while (arrived := prepared.get()) is not None:
            job, batch = arrived
            ran, blamed = _run(stations, job, batch)
            if ran is None:
                job.done(blamed or _answer_halves(whole(stations), job.shots))
            else:
                finisher.submit(_finish, stations, job, batch, ran)


def _run(stations: Stations, job: Job, batch: Any) -> tuple[Any, list[Answer]]:
    """What the device made of the batch; or None, and a single shot's error."""
    try:
        if isinstance(batch, Exception):
            raise batch
        return stations.run(batch, job.hungry), []
    except Exception as error:
        _raise_if_fatal(error)
        if len(job.shots) == 1:
            return None, [_blame(error)]
        if _is_out_of_memory(error):
            job.crowded()
        return None, []


def _prepare_all(stations: Stations, jobs: Iterable[Job], prepared: queue.Queue[tuple[Job, Any] | None]) -> None:
    for job in jobs:
        try:
            batch = stations.prepare(job.shots)
        except Exception as error:
            batch = error
        prepared.put((job, batch))
    prepared.put(None)


def _finish(stations: Stations, job: Job, batch: Any, ran: Any) -> None:
    try:
        answers = stations.finish(batch, ran)
    except Exception:
        log.exception("a batch could not be put into words")
        answers = [_failed()] * len(job.shots)
    job.done(answers)


def whole(stations: Stations) -> Look:
    """All three stations in one."""

    def look(shots: Sequence[ShotPictures]) -> Sequence[Answer]:
        prepared = stations.prepare(shots)
        return stations.finish(prepared, stations.run(prepared))

    return look


def answer_all(look: Look, shots: Sequence[ShotPictures]) -> list[Answer]:
    """Look at a batch; where it fails, halve it, so that only the shot that is to blame gets an error.

    Raises:
        RuntimeError: the GPU is beyond use. The process ends with it, and the server starts another.
    """
    try:
        return list(look(shots))
    except Exception as error:
        _raise_if_fatal(error)
        if len(shots) == 1:
            return [_blame(error)]
    # Outside the except block: there the exception would still hold the failed batch's memory.
    return _answer_halves(look, shots)


def _answer_halves(look: Look, shots: Sequence[ShotPictures]) -> list[Answer]:
    gc.collect()
    half = len(shots) // 2
    return [*answer_all(look, shots[:half]), *answer_all(look, shots[half:])]


def _raise_if_fatal(error: Exception) -> None:
    if type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error):
        raise error


def _is_out_of_memory(error: Exception) -> bool:
    return type(error).__name__ == "OutOfMemoryError"


def _blame(error: Exception) -> Answer:
    log.error("a shot failed", exc_info=error)
    if _is_out_of_memory(error):
        return OutOfMemory("not even the shot alone fits; lower model.max_frame_tokens, or send it later")
    return _failed()


def _failed() -> ShotFailed:
    return ShotFailed("the shot could not be analysed: the model failed on it; the server's log says more")
