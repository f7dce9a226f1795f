"""A checked shot in, an analysis out: decode, measure, ask the engine, fuse."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np

from engines.base import Engine, Picture, ShotPictures
from processes import usable_cores
from qwen_shots import audio, fusion, measure, media
from qwen_shots.decode_budget import DecodeBudget
from qwen_shots.media import PictureFit, Size
from qwen_shots.schemas import Analysis, Measured, Shot
from qwen_shots.scoring import check_mass
from settings import ProcessingSettings


@dataclass(frozen=True, slots=True)
class Decoded:
    """A shot's pictures.

    Attributes:
        frames: all of them, as large as they must be to be measured.
        key_frames: those that the engine looks at, as it sees them.
    """

    frames: tuple[media.Frame, ...]
    key_frames: tuple[Picture, ...]


Timed = Callable[[str], AbstractContextManager[object]]


def _untimed(_: str) -> AbstractContextManager[None]:
    return nullcontext()


class ShotAnalyzer:
    """Analyses shots with one engine.

    Args:
        engine: looks at the key frames.
        settings: the weights of the fusion.
        timed: makes a context that times the stage of the name it is given.

    Attributes:
        preparing: shots that are being decoded or wait for it.
    """

    def __init__(self, engine: Engine, settings: ProcessingSettings, timed: Timed = _untimed) -> None:
        self._engine = engine
        self._timed = timed
        self._settings = settings
        self.preparing = 0
        # Pillow lets go of the interpreter's lock while it decodes, so threads use all cores. The frames of a shot are
        # decoded side by side: a shot alone is ready in a third of the time. Two pools, because whoever waits for
        # frames must not stand in their way.
        cores = usable_cores()
        self._shots = ThreadPoolExecutor(cores, thread_name_prefix="prepare")
        self._frames = ThreadPoolExecutor(cores, thread_name_prefix="decode")
        self._budget = DecodeBudget()

    async def analyze(self, shot: Shot, *, explain: bool = False, deadline: float = math.inf) -> Analysis:
        """Say how a shot feels.

        Args:
            shot: frames and sound.
            explain: whether the analysis bears its evidence.
            deadline: as `ShotPictures.deadline`.

        Raises:
            InvalidPicture: a frame can't be read.
            Unavailable: the engine takes no shots now.
            ShotFailed: the model gave no answer for this shot.
        """
        with self._timed("decode"):
            decoded = await self._decode(shot)
        # Measured while the engine looks. Not behind the shots that wait for a thread: these may be many.
        measuring = asyncio.get_running_loop().run_in_executor(self._frames, measure_frames, decoded.frames)
        looking = self._engine.look(ShotPictures(decoded.key_frames, deadline))
        del decoded  # while the shot waits, its pictures are the engine's alone
        try:
            with self._timed("answer"):
                reading = await looking
                measured = await measuring
        finally:
            measuring.cancel()  # where there is no answer, nobody wants it
        check_mass(reading.readings, self._settings.least_mass)
        features = shot.audio_features if self._settings.enable_audio_fusion else None
        sound = audio.classify(features) if features else None
        attributes, evidence = fusion.fuse(
            reading.readings,
            measured,
            sound,
            temporal_weight=self._settings.temporal_weight,
            luminance_weight=self._settings.luminance_weight,
            audio_weight=self._settings.audio_weight,
            sent=len(shot.images),
        )
        return Analysis(
            shot_id=shot.shot_id,
            caption=reading.caption,
            attributes=attributes,
            evidence=evidence if explain else None,
        )

    async def _decode(self, shot: Shot) -> Decoded:
        self.preparing += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._shots, decode, shot, self._engine.fit, self._frames.map, self._budget
            )
        finally:
            self.preparing -= 1

    def close(self) -> None:
        """Let the threads go."""
        self._shots.shutdown(wait=False, cancel_futures=True)
        self._frames.shutdown(wait=False, cancel_futures=True)


Ready = tuple[media.Frame, Picture | None]
"""A decoded frame; and what the engine sees of it, where it is a key frame."""


def decode(
    shot: Shot,
    fit: PictureFit | None,
    each: Callable[[Callable[[int], Ready], range], Iterable[Ready]] = map,
    budget: DecodeBudget | None = None,
) -> Decoded:
    """Decode all frames, and bring the key frames to the size at which the engine sees them.

    Args:
        shot: five frames or so.
        fit: that size; None decodes everything at its full size and leaves it.
        each: does the work of all frames, as `map` does it one after another.
        budget: holds the memory of what is decoded at the same moment down.

    Raises:
        InvalidPicture: a frame can't be read; the detail names it.
    """
    keys = fusion.key_frame_indices(len(shot.images))

    def ready(index: int) -> Ready:
        is_key = index in keys
        least = _least(fit, is_key=is_key) if fit else None
        frame = media.decode_frame(shot.images[index], f"images[{index}]", least, budget)
        if not is_key:
            return frame, None
        return frame, fit.picture(frame) if fit else np.array(frame.image)

    frames, pictures = zip(*each(ready, range(len(shot.images))), strict=True)
    return Decoded(frames, tuple(pictures[index] for index in keys))


def measure_frames(frames: Sequence[media.Frame]) -> Measured:
    """Measure the light of the key frames, and motion from each frame of a shot to the next, bars left out."""
    images, size = measure.without_bars([frame.image for frame in frames], frames[0].size)
    luminance = measure.luminance([images[index] for index in fusion.key_frame_indices(len(images))])
    motion = measure.motion(images, size)
    return Measured(luminance=luminance, darkness=measure.darkness(luminance), motion=motion)


def _least(fit: PictureFit, *, is_key: bool) -> Callable[[Size], Size]:
    """How large a frame must be decoded: all are measured, and the model sees the key frames."""

    def least(size: Size) -> Size:
        measured, seen = measure.motion_size(size), fit.size(size)
        return (max(measured[0], seen[0]), max(measured[1], seen[1])) if is_key else measured

    return least
