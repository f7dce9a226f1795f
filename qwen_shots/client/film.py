"""A film file, opened and read once from front to back with PyAV, with exact times.

Times are seconds from the first picture, for picture and sound alike.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_shots.client.errors import FilmCutShort, FilmError, NotAFilm, NoVideoStream

if TYPE_CHECKING:
    from av import AudioStream, FFmpegError, Packet, VideoFrame, VideoStream
    from av.container import InputContainer

log = logging.getLogger(__name__)

# Formats whose header tells the length; FFmpeg guesses that of others from the file's size or its last packet.
HEADER_TELLS_LENGTH = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
# Sound and picture seldom end together, and a header may count an edit that is not played.
LENGTH_TOLERANCE_SECONDS = 1.0
# A picture comes a little before the one before it has gone in uneven films, never so much.
LONGEST_STEP_BACK_SECONDS = 10.0
# FFmpeg opens text and single pictures too.
NO_FILM_FORMATS = frozenset({"tty", "image2"})

FALLBACK_RATE = Fraction(25)


@dataclass(frozen=True, slots=True)
class FilmFrame:
    """A picture of the film.

    Attributes:
        start: seconds from the first picture, when it comes on the screen.
        end: seconds, when it goes.
        picture: as decoded.
        aspect: a pixel's width over its height.
    """

    start: float
    end: float
    picture: VideoFrame
    aspect: Fraction


@dataclass(frozen=True, slots=True)
class Film:
    """An open film file."""

    path: Path
    container: InputContainer
    video: VideoStream

    @property
    def origin(self) -> Fraction:
        """The first picture's time in the file's own seconds."""
        return (self.video.start_time or 0) * fraction(self.video.time_base)

    @property
    def frame_rate(self) -> Fraction:
        """Pictures a second, on average."""
        return fraction(self.video.average_rate or self.video.guessed_rate or FALLBACK_RATE)

    @property
    def sound(self) -> AudioStream | None:
        """The track that a player plays: the default one, no commentary or description; None for a silent film."""
        return min(self.container.streams.audio, key=_side_role, default=None)


@contextmanager
def open_film(path: Path) -> Iterator[Film]:
    """Open a film file.

    Raises:
        NotAFilm: it is not there, or not a film.
        NoVideoStream: it holds no moving picture.
        FilmCutShort: it is an MP4 without its index.
    """
    import av

    try:
        # The prefix keeps FFmpeg from taking a name with a colon for an address.
        container = av.open(f"file:{path}")
    except av.FFmpegError as error:
        raise _why_not(path, error) from None
    with container:
        if container.format.name in NO_FILM_FORMATS or container.format.name.endswith("_pipe"):
            raise NotAFilm(f"{path.name} is not a film ({container.format.long_name})")
        yield Film(path, container, _video_of(container, path))


def _why_not(path: Path, error: FFmpegError) -> NotAFilm | FilmCutShort:
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError as reason:
        return NotAFilm(f"{path} can't be opened: {reason.strerror}")
    if head[4:8] == b"ftyp":
        # An MP4 bears its index at the end unless it was made for the web.
        return FilmCutShort(f"{path.name} is an MP4 without its index: it was cut short or is still being written")
    return NotAFilm(f"{path.name} is not a film that can be read ({error.strerror})")


def _video_of(container: InputContainer, path: Path) -> VideoStream:
    from av.stream import Disposition

    # A cover is no film.
    moving = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not moving:
        raise NoVideoStream(f"{path.name} holds no moving picture")
    stream = min(moving, key=_side_role)
    stream.thread_type = "AUTO"
    return stream


def _side_role(stream: VideoStream | AudioStream) -> tuple[bool, bool]:
    """The smaller, the more a track is the film itself; equal ones count in the file's order."""
    from av.stream import Disposition

    beside = Disposition.comment | Disposition.visual_impaired | Disposition.hearing_impaired
    return bool(stream.disposition & beside), not stream.disposition & Disposition.default


def frames(path: Path) -> Iterator[FilmFrame]:
    """All pictures of a film, in order of time. Damaged ones are passed over, with one warning.

    Raises:
        NotAFilm: it can't be opened, or no picture in it can be decoded.
        NoVideoStream: it holds no moving picture.
        FilmCutShort: it ended early. Raised after the last picture that is there.
        FilmError: its times begin anew in the middle.
    """
    with open_film(path) as film:
        clock = _Clock(film)
        reader = _Reader(film)
        for packet in reader.packets():
            if packet.stream is film.video:
                for picture in reader.decoded(packet):
                    yield clock.frame(picture)
        reader.report_damage()
        if not clock.ticked:
            raise NotAFilm(f"no picture in {path.name} can be decoded")
        reader.check_end()


def picture_times(path: Path) -> tuple[list[float], float]:
    """When each picture comes on the screen, in order, and when the last one goes. Nothing is decoded.

    Raises:
        FilmError: as `frames`.
    """
    with open_film(path) as film:
        reader = _Reader(film)
        usual = 1 / film.frame_rate
        shown: list[tuple[Fraction, Fraction]] = []
        for packet in reader.packets():
            if packet.stream is film.video and packet.size:
                base = fraction(packet.time_base)
                # AVI gives no presentation times, and its pictures come in order.
                time = packet.dts if packet.pts is None else packet.pts
                start = len(shown) * usual if time is None else max(time * base - film.origin, Fraction(0))
                shown.append((start, start + (packet.duration * base if packet.duration else usual)))
        reader.check_end()
    shown.sort()
    if not shown:
        raise NotAFilm(f"there is no picture in {path.name}")
    return [float(start) for start, _ in shown], float(shown[-1][1])


class _Clock:
    """Gives each picture its time, also where the file gives none."""

    def __init__(self, film: Film) -> None:
        self._origin = film.origin
        self._usual = 1 / film.frame_rate
        self._aspect = fraction(film.video.sample_aspect_ratio or Fraction(1))
        self._next = Fraction(0)
        self._name = film.path.name
        self.ticked = False

    def frame(self, picture: VideoFrame) -> FilmFrame:
        base = fraction(picture.time_base)
        start = self._next if picture.pts is None else max(picture.pts * base - self._origin, Fraction(0))
        if start < self._next - LONGEST_STEP_BACK_SECONDS:
            raise FilmError(
                f"the times in {self._name} begin anew after {float(self._next):.1f} s: it is put together of several "
                "recordings; `ffmpeg -i FILM -c copy OTHER.mkv` gives it times that go on"
            )
        self._next = start + (picture.duration * base or self._usual)
        self.ticked = True
        return FilmFrame(float(start), float(self._next), picture, self._aspect)


class _Reader:
    """Reads packets, passes over damaged ones and knows where the file ended."""

    def __init__(self, film: Film) -> None:
        self._film = film
        self._end = Fraction(0)
        self._damaged = 0

    def packets(self) -> Iterator[Packet[Any]]:
        """All packets, of picture, sound and text, up to where the file can be read."""
        import av

        packets = self._film.container.demux()
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError as error:
                raise FilmCutShort(f"{self._film.path.name} can't be read to its end ({error.strerror})") from None
            if packet.pts is not None and packet.time_base:
                end = (packet.pts + (packet.duration or 0)) * fraction(packet.time_base)
                self._end = max(self._end, end)
            yield packet

    def decoded(self, packet: Packet[Any]) -> list[VideoFrame]:
        """The pictures that a packet completes."""
        import av

        try:
            return packet.decode()
        except av.FFmpegError:
            self._damaged += 1
            return []

    def report_damage(self) -> None:
        """Say once how much was passed over."""
        if self._damaged:
            log.warning("%s: %d damaged pictures were passed over", self._film.path.name, self._damaged)

    def check_end(self) -> None:
        """Compare where the file ended with what its header says."""
        import av

        container = self._film.container
        if container.format.name not in HEADER_TELLS_LENGTH or not container.duration:
            return
        # Matroska counts from zero and MP4 from the first packet; the shorter reading accuses no whole film.
        told = Fraction(container.duration, av.time_base)
        if self._end < told - LENGTH_TOLERANCE_SECONDS:
            raise FilmCutShort(
                f"{self._film.path.name} ends after {float(self._end):.1f} s, and its header says {float(told):.1f} s"
            )


def fraction(value: Fraction | None) -> Fraction:
    """A time base or ratio that PyAV tells, also as the kind of its own that PyAV 19 gives."""
    assert value is not None
    return Fraction(value.numerator, value.denominator)
