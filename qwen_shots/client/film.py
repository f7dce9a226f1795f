"""A film file, opened and read once from front to back with PyAV, with exact times.

There is one clock, for picture and sound alike: the seconds at which a player shows a picture. MP4 and Matroska have a
timeline that begins at 0, and Chromium's `currentTime` counts on it, so that a first picture at 1.4 s is shown then.
Other formats may begin anywhere (a transport stream counts from when its encoder was started), and players count from
the first timestamp of any track. Pictures that are never shown, as those outside an edit list, are left out and not
counted.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_shots.client.errors import FilmCutShort, FilmError, NotAFilm
from qwen_shots.client.packets import (
    HEADER_TELLS_LENGTH,
    LENGTH_TOLERANCE_SECONDS,
    PacketReader,
    check_scrambled,
    fraction,
)
from qwen_shots.client.tracks import picture_track, sound_tracks

if TYPE_CHECKING:
    from av import AudioStream, FFmpegError, Packet, VideoFrame, VideoStream
    from av.container import InputContainer

# A picture comes a little before the one before it has gone in uneven films, never so much.
LONGEST_STEP_BACK_SECONDS = 10.0
# FFmpeg opens text and single pictures too.
NO_FILM_FORMATS = frozenset({"tty", "image2"})
# Formats whose timeline begins at 0, wherever on it the first picture lies.
TIMELINE_FROM_ZERO = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
# Formats that store pictures in the order of decoding and without the times at which they are shown.
WITHOUT_PRESENTATION_TIMES = frozenset({"avi"})
# Formats that leave the shape of the pixels to the coded pictures; in others the header decides, as in FFmpeg.
WITHOUT_ASPECT = frozenset({"mpegts", "mpeg", "mpegvideo", "h264", "hevc", "flv", "wtv"})

FALLBACK_RATE = Fraction(25)


@dataclass(frozen=True, slots=True)
class FilmFrame:
    """A picture of the film.

    Attributes:
        start: seconds on the film's clock, when a player shows it.
        end: seconds, when the next one takes its place; of the last one, when picture and sound have ended.
        picture: as decoded.
        aspect: a pixel's width over its height.
    """

    start: float
    end: float
    picture: VideoFrame
    aspect: Fraction


@dataclass(frozen=True, slots=True)
class Film:
    """An open film file.

    Attributes:
        path: where it is.
        container: the file, opened.
        video: the picture's track.
        sound: the tracks that are heard together; none for a silent film.
        origin: where the film's clock is 0, in the file's own seconds.
    """

    path: Path
    container: InputContainer
    video: VideoStream
    sound: tuple[AudioStream, ...]
    origin: Fraction

    @property
    def frame_rate(self) -> Fraction:
        """Pictures a second, on average."""
        return fraction(self.video.average_rate or self.video.guessed_rate or FALLBACK_RATE)

    @property
    def duration(self) -> Fraction:
        """Seconds, by the header or FFmpeg's guess; 0 where neither knows."""
        import av

        if self.container.duration:
            return Fraction(self.container.duration, av.time_base)
        return (self.video.duration or 0) * fraction(self.video.time_base)

    @property
    def pictures_expected(self) -> float:
        """How many pictures the header speaks of; infinite where it says nothing."""
        if self.video.frames:
            return self.video.frames
        if self.container.format.name in HEADER_TELLS_LENGTH and self.duration:
            return float(self.duration * self.frame_rate)
        return math.inf


@contextmanager
def open_film(path: Path) -> Iterator[Film]:
    """Open a film file.

    Raises:
        NotAFilm: it is not there, or not a film.
        NoVideoStream: it holds no moving picture.
        FilmCutShort: it is an MP4 without its index.
    """
    import av

    _check_can_be_read_again(path)
    try:
        # The prefix keeps FFmpeg from taking a name with a colon for an address. Old programs wrote tags as they liked.
        container = av.open(f"file:{path}", metadata_errors="replace")
    except av.FFmpegError as error:
        raise _why_not(path, error) from None
    with container:
        if container.format.name in NO_FILM_FORMATS or container.format.name.endswith("_pipe"):
            raise NotAFilm(f"{path.name} is not a film ({container.format.long_name})")
        video = picture_track(container, path)
        yield Film(path, container, video, sound_tracks(container, video), _origin(container, video))


def _check_can_be_read_again(path: Path) -> None:
    """Refuse what can be read only once, or never ends, before an attempt to open it waits for a writer."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise NotAFilm(
            f"{path} is a pipe, a socket or a device, and a film is read more than once: save it to a file first"
        )


def _origin(container: InputContainer, video: VideoStream) -> Fraction:
    import av

    if container.format.name in TIMELINE_FROM_ZERO:
        # Nothing is shown before 0; a film with a negative start is moved as a whole.
        return min(Fraction(0), (video.start_time or 0) * fraction(video.time_base))
    return Fraction(container.start_time or 0, av.time_base)


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


def frames(path: Path) -> Iterator[FilmFrame]:
    """Decode all pictures of a film that are shown, in order of time. Damaged ones are passed over, with one warning.

    Raises:
        NotAFilm: it can't be opened, or no picture in it can be decoded.
        NoVideoStream: it holds no moving picture.
        FilmEncrypted: its picture is encrypted.
        FilmDamaged: more than a small share of its pictures is damaged. Raised as soon as that is sure.
        FilmCutShort: it ended early. Raised after the last picture that is there.
        FilmError: its times begin anew in the middle. Raised after the last picture before that.
    """
    with open_film(path) as film:
        check_scrambled(film)
        reader = PacketReader(film)
        current: _Shown | None = None
        for following in _shown(film, reader):
            if current:
                yield current.until(following.start)
            current = following
        if not current:
            raise NotAFilm(f"no picture in {path.name} can be decoded")
        yield current.until(_last_end(current.end, reader))
        reader.check()


def picture_times(path: Path) -> tuple[list[float], float]:
    """When each picture is shown, in order, and when the last one goes, as `frames` has it. Nothing is decoded.

    Damaged pictures count too, for only decoding finds them.

    Raises:
        FilmError: as `frames`.
    """
    with open_film(path) as film:
        check_scrambled(film)
        reader = PacketReader(film)
        clock = _Clock(film)
        shown = [
            (*clock.span_of_packet(packet), packet.is_keyframe)
            for packet in reader.packets()
            if packet.stream is film.video and packet.size and not packet.is_discard
        ]
        reader.check()
    if not shown:
        raise NotAFilm(f"there is no picture in {path.name}")
    first = Fraction(0)
    if film.container.format.name not in TIMELINE_FROM_ZERO:
        # A recording may begin between two key frames; what needs the one before can't be decoded.
        first = next((start for start, _, key in shown if key), first)
    spans = sorted((start, end) for start, end, _ in shown if start >= first)
    return [float(start) for start, _ in spans], float(_last_end(spans[-1][1], reader))


def _last_end(end: Fraction, reader: PacketReader) -> Fraction:
    """When a film ends whose last picture ends then: a player leaves it on the screen while the sound goes on."""
    # Nearly every film's sound is a little longer: codecs fill up their last block.
    return reader.sound_end if reader.sound_end > end + LENGTH_TOLERANCE_SECONDS else end


@dataclass(frozen=True, slots=True)
class _Shown:
    """A picture and its time; `end` as the file says, or by the usual length."""

    start: Fraction
    end: Fraction
    picture: VideoFrame
    aspect: Fraction

    def until(self, end: Fraction) -> FilmFrame:
        """The picture, shown until then."""
        return FilmFrame(float(self.start), float(end), self.picture, self.aspect)


def _shown(film: Film, reader: PacketReader) -> Iterator[_Shown]:
    """All pictures that can be decoded, up to where the times begin anew."""
    clock = _Clock(film)
    aspect = _Aspect(film)
    shown = latest = Fraction(0)
    for packet in reader.packets():
        if packet.stream is not film.video:
            continue
        clock.note(packet)
        aspect.note(packet)
        for picture in reader.decoded(packet):
            start, end = clock.span(picture)
            if start < latest - LONGEST_STEP_BACK_SECONDS:
                reader.fail(
                    FilmError(
                        f"the times in {film.path.name} begin anew after {float(latest):.1f} s: it is put together of "
                        "several recordings; `ffmpeg -i FILM -c copy OTHER.mkv` gives it times that go on"
                    )
                )
                return
            latest = end
            shown = max(shown, start)  # what comes too late is shown at once
            yield _Shown(shown, max(shown, end), picture, aspect.of(picture))


class _Aspect:
    """Follows the shape of the pixels, which changes in a broadcast from one programme to the next."""

    def __init__(self, film: Film) -> None:
        self._decoder = film.video.codec_context
        self._may_change = film.container.format.name in WITHOUT_ASPECT
        self._key_times: dict[int | None, int | None] = {}
        self._current = self._coming = fraction(film.video.sample_aspect_ratio or Fraction(1))
        self._comes_at: int | None = None

    def note(self, packet: Packet[Any]) -> None:
        """Take in a packet before it is decoded."""
        if self._may_change and packet.is_keyframe:
            self._key_times[packet.dts] = packet.pts

    def of(self, picture: VideoFrame) -> Fraction:
        """A pixel's width over its height in the next picture."""
        if not self._may_change:
            return self._current
        # The decoder is some pictures ahead: it has the shape of the packet that made it give this one.
        decoded = fraction(self._decoder.sample_aspect_ratio or Fraction(1))
        is_news = decoded != self._coming
        if is_news:
            self._coming, self._comes_at = decoded, self._key_times.get(picture.dts)
        if picture.pts == self._comes_at or (picture.key_frame and not is_news):
            self._current = self._coming
        return self._current


class _Clock:
    """Gives each picture its time on the film's clock, also where the file gives none."""

    def __init__(self, film: Film) -> None:
        self._decoder = film.video.codec_context
        self._origin = film.origin
        self._usual = 1 / film.frame_rate
        self._by_decoding = film.container.format.name in WITHOUT_PRESENTATION_TIMES
        self._decoded: list[int] = []
        self._next = Fraction(0)

    def note(self, packet: Packet[Any]) -> None:
        """Take in a packet before it is decoded."""
        if self._by_decoding and packet.size and packet.dts is not None:
            self._decoded.append(packet.dts)

    def span(self, picture: VideoFrame) -> tuple[Fraction, Fraction]:
        """A picture's start and end."""
        time = self._reordered(picture) if self._by_decoding else picture.pts
        return self._span(time, picture.duration, fraction(picture.time_base))

    def span_of_packet(self, packet: Packet[Any]) -> tuple[Fraction, Fraction]:
        """The start and end of a packet's picture; without presentation times, of the picture of the same number."""
        time = packet.dts if packet.pts is None or self._by_decoding else packet.pts
        return self._span(time, packet.duration, fraction(packet.time_base))

    def _span(self, time: int | None, duration: int | None, base: Fraction) -> tuple[Fraction, Fraction]:
        start = self._next if time is None else max(time * base - self._origin, Fraction(0))
        self._next = start + ((duration or 0) * base or self._usual)
        return start, self._next

    def _reordered(self, picture: VideoFrame) -> int | None:
        """The time of the packet that has the picture's place in the order of decoding.

        A decoder that reorders gives a picture out when it has read so many packets more; at the end all that is left.
        """
        if picture.dts is None:
            return None
        return self._decoded[max(0, bisect_left(self._decoded, picture.dts) - self._decoder.reorder_depth)]
