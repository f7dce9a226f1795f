"""What an engine is: pictures of a shot in; a caption and the answer to every question out.

The server and the analyzer know engines by these types only, so a model on this machine's GPUs, a remote endpoint and
a test's fake are the same to them. No torch here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qwen_shots.errors import QueueFull
from qwen_shots.media import PictureFit
from qwen_shots.scoring import Reading

Picture = NDArray[np.uint8]


class Status(str, Enum):
    """What an engine can do right now. Only a HEALTHY one takes shots."""

    LOADING = "loading"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine runs on.

    Attributes:
        model: the name that the configuration gives.
        device: "cuda", "cpu", or "remote" for endpoints; None while loading.
        gpu_count: GPUs in use, 0 on the CPU.
        gpu_memory_bytes: memory of all of them together; None on the CPU.
        weights: tells one set of weights from another: a hash of their files, or of what an endpoint says of its
            model; None while that is not known.
    """

    model: str
    device: str | None = None
    gpu_count: int = 0
    gpu_memory_bytes: int | None = None
    weights: str | None = None


@dataclass(frozen=True, slots=True)
class ShotPictures:
    """The key frames of one shot, in time order.

    Attributes:
        pictures: RGB arrays of shape (height, width, 3), of any size: the engine scales down what is larger than its
            `fit`.
        deadline: when its client gives up waiting, as `time.time` tells it; of shots that wait, the one with the
            earliest goes first.
    """

    pictures: tuple[Picture, ...]
    deadline: float = math.inf


@dataclass(frozen=True, slots=True)
class ShotReading:
    """What the model says of one shot.

    Attributes:
        caption: one sentence.
        readings: attribute to one reading a key frame, in the order of the pictures.
    """

    caption: str
    readings: dict[str, tuple[Reading, ...]]


class Observer(Protocol):
    """Is told what an engine does, to count it."""

    def waited(self, seconds: float) -> None:
        """A shot has left the queue for an engine, after that long."""

    def looked(self, shots: int, tokens: int, seconds: float) -> None:
        """A batch was answered."""

    def holds(self, engine: int, gpu_bytes: int) -> None:
        """An engine process holds so much GPU memory now."""

    def lost(self) -> None:
        """An engine process died, or was ended because it was stuck."""


class NoObserver:
    """Counts nothing."""

    def waited(self, seconds: float) -> None:
        """See `Observer`."""

    def looked(self, shots: int, tokens: int, seconds: float) -> None:
        """See `Observer`."""

    def holds(self, engine: int, gpu_bytes: int) -> None:
        """See `Observer`."""

    def lost(self) -> None:
        """See `Observer`."""


class Engine(Protocol):
    """Looks at shots. Implementations: `engines.local` and `engines.remote`; fakes in the tests."""

    @property
    def info(self) -> EngineInfo:
        """What the engine runs on."""

    @property
    def status(self) -> Status:
        """Whether it takes shots now."""

    @property
    def failure(self) -> str | None:
        """With FAILED: why, in a sentence for the operator. Else None."""

    @property
    def fit(self) -> PictureFit | None:
        """How large it sees pictures, so that none is prepared any larger; None while that is not known."""

    @property
    def queue_depth(self) -> int:
        """Shots that wait."""

    @property
    def full(self) -> QueueFull | None:
        """Why no further shot can wait; None while one can."""

    @property
    def retry_after(self) -> int:
        """Seconds until the shots that wait now will be through, at the measured rate."""

    async def start(self) -> None:
        """Begin to load. Returns at once; `status` tells when it is done."""

    async def look(self, shot: ShotPictures) -> ShotReading:
        """Look at one shot. Calls may overlap: the engine batches them.

        Raises:
            Unavailable: the engine is loading, lost or full.
            ShotFailed: this shot can't be scored.
        """

    async def close(self) -> None:
        """Finish the shots in hand and free everything. May be called twice."""
