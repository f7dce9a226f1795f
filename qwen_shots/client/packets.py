"""A film's packets, read once from front to back, past what is damaged and up to where the file can be read."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from qwen_shots.client.errors import FilmCutShort, FilmDamaged, FilmEncrypted, FilmError
from qwen_shots.client.scrambling import scrambled_share

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.stream import Stream

    from qwen_shots.client.film import Film

log = logging.getLogger(__name__)

# Formats whose header tells the length; FFmpeg guesses that of others from the file's size or its last packet.
HEADER_TELLS_LENGTH = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
# Sound and picture seldom end together, and a header may count an edit that is not played.
LENGTH_TOLERANCE_SECONDS = 1.0
# A scratch or a lost packet spoils the pictures up to the next key frame; a film of which more is missing gives wrong
# shots and scores.
MAX_DAMAGED_SHARE = 0.1
# Sound may pause, and then at least two packets follow each other after the pause; a single one so far from both its
# neighbours has a damaged time.
SOUND_JUMP_SECONDS = 10


class PacketReader:
    """Reads packets, passes over damaged ones and knows where the file ended.

    What goes wrong raises nothing while packets are read, so that the caller can finish what it holds; `check` raises
    it afterwards.
    """

    def __init__(self, film: Film) -> None:
        self._film = film
        self._end = Fraction(0)
        self._sound_end = Fraction(0)
        self._sound = {track.index: Continuity(film.origin) for track in film.sound}
        self._pictures = 0
        self._damaged = 0
        self._failure: FilmError | None = None

    @property
    def sound_end(self) -> Fraction:
        """When the sound that is heard ends, as far as the film was read; seconds as `FilmFrame.start`."""
        return self._sound_end - self._film.origin

    def packets(self, *streams: Stream) -> Iterator[Packet[Any]]:
        """The packets of these tracks, or of all, up to where the file can be read.

        Raises:
            FilmEncrypted: a picture can't be decoded without a key.
        """
        packets = self._film.container.demux(*streams)
        while not self._failure:
            try:
                packet = next(packets)
            except (StopIteration, IndexError):
                # IndexError: PyAV at the end of a file in which a track appeared after it had been opened.
                return
            except Exception as error:  # FFmpeg's, and whatever PyAV raises: what came before it must not be lost
                reason = getattr(error, "strerror", None) or type(error).__name__
                self.fail(FilmCutShort(f"{self._film.path.name} can't be read to its end ({reason})"))
                return
            if packet.stream is self._film.video and packet.has_sidedata("encryption_info"):
                raise FilmEncrypted(
                    f"{self._film.path.name} is encrypted, and its pictures can't be decoded without a key"
                )
            self._note_end(packet)
            yield packet

    def decoded(self, packet: Packet[Any]) -> list[VideoFrame]:
        """The pictures that a packet completes."""
        self._pictures += bool(packet.size)
        try:
            pictures: list[VideoFrame] = packet.decode()
        except Exception:  # FFmpeg's, and whatever PyAV raises on a picture that is not one
            self._note_damage(1)
            return []
        self._note_damage(sum(picture.is_corrupt for picture in pictures))
        return pictures

    def fail(self, error: FilmError) -> None:
        """End the iteration at its next packet; `check` raises the error."""
        self._failure = error

    def check(self) -> None:
        """Say what was passed over, and raise what ended the film early.

        Raises:
            FilmError: as given to `fail`.
            FilmDamaged: more than MAX_DAMAGED_SHARE of the pictures is damaged.
            FilmCutShort: the film can't be read to its end, or ended before its header says it does.
        """
        if self._damaged:
            log.warning("%s: %d damaged pictures were passed over or concealed", self._film.path.name, self._damaged)
        if not self._failure:
            self._check_share(self._pictures)
        if not self._failure:
            self._check_length()
        if self._failure:
            raise self._failure

    def _note_end(self, packet: Packet[Any]) -> None:
        if packet.stream in self._film.sound:
            ends = [_span(settled)[1] for settled in self._sound[packet.stream.index].settle(packet) if settled.size]
            self._sound_end = max([self._sound_end, *ends])
        if packet.pts is not None and packet.time_base:
            self._end = max(self._end, _span(packet)[1])

    def _note_damage(self, pictures: int) -> None:
        if not pictures:
            return
        self._damaged += pictures
        # As soon as it is sure: a film of two hours should not be sent to its end first.
        self._check_share(max(self._pictures, self._film.pictures_expected))

    def _check_share(self, total: float) -> None:
        if self._damaged > MAX_DAMAGED_SHARE * total > 0:
            share = self._damaged / self._pictures
            self.fail(
                FilmDamaged(
                    f"{self._film.path.name}: {share:.0%} of the pictures read ({self._damaged} of {self._pictures}) "
                    f"are damaged or encrypted, and at most {MAX_DAMAGED_SHARE:.0%} of a film may be"
                )
            )

    def _check_length(self) -> None:
        """Compare where the file ended with what its header says."""
        import av

        container = self._film.container
        if container.format.name not in HEADER_TELLS_LENGTH or not container.duration:
            return
        # Matroska counts from zero and MP4 from the first packet; the shorter reading accuses no whole film.
        length = Fraction(container.duration, av.time_base)
        if self._end < length - LENGTH_TOLERANCE_SECONDS:
            ends = f"ends after {float(self._end):.1f} s, and its header says {float(length):.1f} s"
            self.fail(FilmCutShort(f"{self._film.path.name} {ends}"))


class Continuity:
    """Leaves out the packets of a sound track whose damaged time is far from both its neighbours'."""

    def __init__(self, origin: Fraction) -> None:
        self._end = origin
        self._waiting: Packet[Any] | None = None

    def settle(self, packet: Packet[Any]) -> list[Packet[Any]]:
        """Take in the track's next packet, and return what is certain by then: the one before it, if that is whole.

        The empty packet at the end of the track is returned too.
        """
        if packet.pts is None and packet.size:
            return [packet]
        settled = []
        if (before := self._waiting) is not None:
            start, end = _span(before)
            if _is_near(self._end, start) or (packet.pts is not None and _is_near(end, _span(packet)[0])):
                self._end = end
                settled.append(before)
        self._waiting = packet if packet.size else None
        return settled if packet.size else [*settled, packet]


def _is_near(end: Fraction, start: Fraction) -> bool:
    return abs(start - end) <= SOUND_JUMP_SECONDS


def _span(packet: Packet[Any]) -> tuple[Fraction, Fraction]:
    """The start and end of a packet that has a time, in the file's own seconds."""
    start, base = packet.pts or 0, fraction(packet.time_base)
    return start * base, (start + (packet.duration or 0)) * base


def check_scrambled(film: Film) -> None:
    """Refuse a broadcast whose pictures were recorded as they were sent, scrambled.

    Raises:
        FilmEncrypted: more than MAX_DAMAGED_SHARE of the pictures is scrambled.
    """
    if film.container.format.name != "mpegts":
        return
    share = scrambled_share(film.path, film.video.id)
    if share > MAX_DAMAGED_SHARE:
        raise FilmEncrypted(
            f"{film.path.name} is encrypted: about {share:.0%} of its pictures are scrambled and can't be decoded "
            f"without a key, and at most {MAX_DAMAGED_SHARE:.0%} of a film may be"
        )
    if share:
        log.warning("%s: about %s of the pictures are scrambled and left out", film.path.name, f"{share:.1%}")


def fraction(value: Fraction | None) -> Fraction:
    """A time base or ratio from PyAV, also of the type that PyAV 19 has for them."""
    assert value is not None
    return Fraction(value.numerator, value.denominator)
