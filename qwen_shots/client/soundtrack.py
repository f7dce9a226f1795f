"""The sound of a film, decoded once from front to back to one channel, and cut along the shots.

Sample n belongs at n / RATE seconds from the first picture, whatever pauses, overlaps or late starts the file has.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qwen_shots.client.film import Film, fraction, open_film
from qwen_shots.client.shots import Span

if TYPE_CHECKING:
    from av import AudioFrame

log = logging.getLogger(__name__)

Sound: TypeAlias = NDArray[np.float32]
"""One channel of samples, (samples,), -1..1."""

RATE = 22_050  # samples a second: librosa's own, so its features mean the same for every client

# Where a sound starts farther than this from the end of the one before, the file has a gap or an overlap; nearer is
# rounding (FFmpeg's aresample draws the same line: min_hard_comp, 0.1 s).
GAP_SECONDS = 0.1

# Of a longer take, this much of its sound is measured: the features' arrays grow by 1.4 MB a second.
MAX_SECONDS = 300.0


def sounds_of(path: Path, shots: Iterable[Span]) -> Iterator[Sound | None]:
    """The sound of each shot, at most the first MAX_SECONDS of it.

    Args:
        path: the film file.
        shots: in order of time.

    Returns:
        For each shot its samples at RATE; None where the film has no sound there.

    Raises:
        FilmError: the film can't be opened.
    """
    with open_film(path) as film:
        tape = _Tape(_blocks(_decoded(film), film.origin) if film.sound else iter(()))
        for shot in shots:
            end = min(shot.end, shot.start + MAX_SECONDS)
            samples = tape.cut(round(shot.start * RATE), round(end * RATE))
            yield samples if len(samples) else None


class _Tape:
    """Blocks of sound that are read as far as somebody asks, and forgotten behind him."""

    def __init__(self, blocks: Iterator[Sound]) -> None:
        self._blocks = blocks
        self._held: deque[tuple[int, Sound]] = deque()
        self._end = 0

    def cut(self, first: int, last: int) -> Sound:
        """Samples `first` to before `last`; fewer where the sound ends. `first` never goes back."""
        while self._end < last and (block := next(self._blocks, None)) is not None:
            self._held.append((self._end, block))
            self._end += len(block)
            self._forget(first)
        self._forget(first)
        parts = [block[max(0, first - at) : max(0, last - at)] for at, block in self._held]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _forget(self, first: int) -> None:
        while self._held and self._held[0][0] + len(self._held[0][1]) <= first:
            self._held.popleft()


def _decoded(film: Film) -> Iterator[AudioFrame]:
    """The film's sound track; what is damaged leaves a gap, with one warning."""
    import av

    warned = False
    assert film.sound is not None
    for packet in film.container.demux(film.sound):
        try:
            yield from packet.decode()
        except av.FFmpegError:  # noqa: PERF203 - one packet at a time may be damaged
            if not warned:
                log.warning("%s: a part of the sound is damaged and counts as silence", film.path.name)
            warned = True


def _blocks(decoded: Iterable[AudioFrame], origin: Fraction) -> Iterator[Sound]:
    """Lay decoded sound on the film's time: blocks that follow each other from the first picture on without a gap."""
    given = 0  # samples so far
    for position, samples in _placed(decoded, origin):
        while given < position:  # silence, at most a second at a time
            given += (pause := min(RATE, position - given))
            yield np.zeros(pause, np.float32)
        block = samples[given - position :]
        given += len(block)
        yield block


def _placed(decoded: Iterable[AudioFrame], origin: Fraction) -> Iterator[tuple[int, Sound]]:
    """One channel at RATE, each block with the number of its first sample, which is negative before the picture."""
    import av

    resampler, setup = None, None
    position = 0
    for number, frame in enumerate(decoded):
        if setup != (frame.format.name, frame.layout.name, frame.sample_rate):
            # A broadcast may go from stereo to surround between two programmes.
            setup = (frame.format.name, frame.layout.name, frame.sample_rate)
            resampler = av.AudioResampler(format="fltp", rate=RATE)
        if frame.pts is not None:
            told = round((frame.pts * fraction(frame.time_base) - origin) * RATE)
            if number == 0 or abs(told - position) > GAP_SECONDS * RATE:
                position = told
        assert resampler is not None
        for part in resampler.resample(frame):
            # The channels' mean, as librosa.load has it: FFmpeg's own mix makes equal channels 3 dB louder.
            # Lossy codecs overshoot; a loudspeaker can't.
            samples = np.clip(part.to_ndarray().mean(axis=0), -1, 1).astype(np.float32)
            yield position, np.nan_to_num(samples, copy=False)  # a broken float is silence
            position += len(samples)
