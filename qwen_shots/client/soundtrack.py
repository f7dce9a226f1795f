"""The sound of a film, decoded once from front to back to one channel, and cut along the shots.

Sample n belongs at n / RATE seconds on the film's clock (see `film`), whatever pauses, overlaps or late starts the file
has.
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from qwen_shots.client.film import Film, open_film
from qwen_shots.client.packets import Continuity, PacketReader, fraction
from qwen_shots.client.scrambling import scrambled_share
from qwen_shots.client.shots import Span
from qwen_shots.client.tracks import undecodable_sound

if TYPE_CHECKING:
    from av import AudioFrame, AudioResampler

log = logging.getLogger(__name__)

Sound: TypeAlias = NDArray[np.float32]
"""One channel of samples, (samples,), -1..1."""

RATE = 22_050  # samples a second: librosa's own, so its features mean the same for every client

# Where a sound starts farther than this from the end of the one before, the file has a gap or an overlap; nearer is
# rounding (FFmpeg's aresample draws the same line: min_hard_comp, 0.1 s).
GAP_SECONDS = 0.1

# Files store tracks in turns; of tracks that are mixed, none lies farther behind the others than this.
INTERLEAVING_SECONDS = 10

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
        if passed_over := undecodable_sound(film.container, film.video):
            log.warning(
                "%s: %s can't be decoded (%s)",
                path.name,
                "a sound track" if film.sound else "the sound",
                ", ".join(passed_over),
            )
        if film.container.format.name == "mpegts" and any(scrambled_share(path, track.id) for track in film.sound):
            log.warning("%s: a part of the sound is scrambled and counts as silence", path.name)
        tape = _Tape(_mixed(_decoded(film), len(film.sound), film.origin) if film.sound else iter(()))
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


def _decoded(film: Film) -> Iterator[tuple[int, AudioFrame]]:
    """What the film's sound tracks hold, with the track's number; what is damaged leaves a gap, with one warning."""
    warned = False
    tracks = {track.index: Continuity(film.origin) for track in film.sound}
    packets = PacketReader(film).packets(*film.sound)
    for packet in chain.from_iterable(tracks[packet.stream.index].settle(packet) for packet in packets):
        try:
            frames = cast("list[AudioFrame]", packet.decode())
        except Exception:  # FFmpeg's, and whatever PyAV raises on sound that is none
            if not warned:
                log.warning("%s: a part of the sound is damaged and counts as silence", film.path.name)
            warned = True
            continue
        for frame in frames:
            yield packet.stream.index, frame


def _mixed(decoded: Iterable[tuple[int, AudioFrame]], tracks: int, origin: Fraction) -> Iterator[Sound]:
    """Lay decoded sound on the film's clock: blocks that follow each other from 0 on without a gap.

    Args:
        decoded: frames with their track's number.
        tracks: how many there are; their mean is taken, as that of a track's channels.
        origin: the file's own time at which the film's clock is 0, in seconds.
    """
    lanes: defaultdict[int, _Lane] = defaultdict(lambda: _Lane(origin))
    mixer = _Mixer(tracks)
    for track, frame in decoded:
        for position, samples in lanes[track].place(frame):
            yield from mixer.add(position, samples)
    yield mixer.rest()


class _Mixer:
    """Adds up the sound of tracks that are read in turns, in bounded space."""

    def __init__(self, tracks: int) -> None:
        self._tracks = tracks
        self._sum = np.zeros((INTERLEAVING_SECONDS if tracks > 1 else 1) * RATE, np.float32)
        self._start = 0  # the number of the sum's first sample
        self._end = 0  # behind the last one that was added

    def add(self, position: int, samples: Sound) -> Iterator[Sound]:
        """Add samples from this number on; seconds to which no track can add any more come out."""
        samples = samples[max(0, self._start - position) :]
        position = max(position, self._start)
        while len(samples):
            if (room := self._start + len(self._sum) - position) <= 0:
                yield self._shift()
                continue
            at = position - self._start
            part = samples[:room]
            self._sum[at : at + len(part)] += part / self._tracks
            position += len(part)
            samples = samples[room:]
        self._end = max(self._end, position)

    def rest(self) -> Sound:
        """What is left when all tracks have ended."""
        return self._sum[: max(0, self._end - self._start)]

    def _shift(self) -> Sound:
        second: Sound = self._sum[:RATE].copy()
        self._sum[:-RATE] = self._sum[RATE:]
        self._sum[-RATE:] = 0
        self._start += RATE
        return second


class _Lane:
    """One track's sound, as one channel at RATE, on the film's clock."""

    def __init__(self, origin: Fraction) -> None:
        self._origin = origin
        self._resampler: AudioResampler | None = None
        self._rate = 0
        self._position: int | None = None
        self._end = 0

    def place(self, frame: AudioFrame) -> Iterator[tuple[int, Sound]]:
        """Samples with the number of their first one, negative before 0; what was there already is left out."""
        import av

        if self._resampler is None or self._rate != frame.sample_rate:
            self._rate = frame.sample_rate
            self._resampler = av.AudioResampler(format="fltp", layout="mono", rate=RATE)
        if frame.pts is not None:
            stated = round((frame.pts * fraction(frame.time_base) - self._origin) * RATE)
            if self._position is None or abs(stated - self._position) > GAP_SECONDS * RATE:
                self._position = stated
        position = self._position or 0
        for part in self._resampler.resample(_one_channel(frame)):
            # Lossy codecs overshoot; a loudspeaker can't.
            samples = np.clip(part.to_ndarray()[0], -1, 1)
            known = max(0, self._end - position)
            yield position + known, samples[known:]
            position += len(samples)
            self._end = max(self._end, position)
        self._position = position


def _one_channel(frame: AudioFrame) -> AudioFrame:
    """The channels' mean, as librosa.load has it: FFmpeg's own mix makes equal channels 3 dB louder.

    It also needs to know the channels' places, which films have in orders that it has no name for.
    """
    import av

    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(frame.samples, -1).T
    if samples.dtype.kind == "f":
        mean = np.where(np.isfinite(samples), samples, 0).mean(axis=0)  # a broken float is silence
    else:  # 8 bits are offset binary, more are signed
        full_scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
        mean = samples.mean(axis=0, dtype=np.float64) / full_scale - (samples.dtype.kind == "u")
    single = av.AudioFrame.from_ndarray(mean[None].astype(np.float32), "fltp", "mono")
    single.sample_rate = frame.sample_rate
    return single
