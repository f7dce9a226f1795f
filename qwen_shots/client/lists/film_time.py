"""What a shot list says, in the film's own time."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from qwen_shots.client.timecode import DROP_MARKS, InvalidTimecode, Timebase, as_marked, can_drop, timecode_rate
from qwen_shots.errors import InvalidInput

_SECONDS = re.compile(r"\d{1,9}(\.\d+)?")
_CLOCK = re.compile(r"(?:(\d{1,4}):)?(\d{1,4}):([0-5]\d(?:\.\d+)?)")
_MILLISECONDS = re.compile(r"\d+:\d\d:\d\d,\d{3}")  # SubRip's
_COMMA_AND_TWO = re.compile(r"\d+:\d\d:\d\d,\d\d")


class InvalidShotList(InvalidInput):
    """The list can't be read, or is of another film."""

    slug = "invalid-shot-list"
    title = "The shot list is not valid"


@dataclass(frozen=True, slots=True)
class Listed:
    """A shot of a list.

    Attributes:
        start: seconds of the film, as a player shows them.
        end: seconds.
        name: None where the list gives none.
        place: where in the list, for error messages: `line 3`.
        medium: the file or tape that the list takes it from; None where it names none.
    """

    start: float
    end: float
    name: str | None
    place: str
    medium: str | None = None


class FilmTime:
    """Turns what a list says into seconds of the film.

    Args:
        rate: the film's pictures a second.
        start_timecode: of its first picture; None counts from 00:00:00:00.
        borders: seconds of each picture and of the end, in order.
    """

    def __init__(self, rate: Fraction, start_timecode: str | None, borders: Sequence[float] = (0.0,)) -> None:
        self.base = as_marked(timecode_rate(rate), start_timecode or "")
        self._start = self.base.parse(start_timecode) if start_timecode else 0
        self._borders = borders

    def parse(self, text: str, *, decimal_comma: bool = False) -> float:
        """Seconds, a clock's time or a timecode.

        Args:
            text: `12.5`, `0:00:12.5`, `00:00:12,500` or `01:00:12:12`.
            decimal_comma: whether numbers are written as `12,5`. Two digits behind a time with hours are no such
                number: `00:00:12,12` is a timecode of a film that drops frames, and ambiguous with others.

        Raises:
            InvalidInput: it is none of them.
        """
        text = text.strip()
        if _COMMA_AND_TWO.fullmatch(text):
            if not self.base.drop:
                raise InvalidTimecode("two digits after a comma may be frames or hundredths; write ; or . before them")
            return self.seconds(self.frame(text))
        if (decimal_comma and text.count(",") == 1) or _MILLISECONDS.fullmatch(text):
            text = text.replace(",", ".")
        if _SECONDS.fullmatch(text):
            return float(text)
        if found := _CLOCK.fullmatch(text):
            hours, minutes, seconds = found.groups()
            return int(hours or 0) * 3600 + int(minutes) * 60 + float(seconds)
        return self.seconds(self.frame(text))

    def base_of(self, text: str, *, drop: bool | None = None) -> Timebase:
        """How a timecode counts.

        Args:
            text: marked with `;` where it drops frames.
            drop: whether the list says that its timecodes do; None counts as the film's own timecode does.
        """
        marked = any(mark in text for mark in DROP_MARKS)
        wanted = marked or (self.base.drop if drop is None else drop)
        return Timebase(self.base.rate, wanted and can_drop(self.base.rate))

    def frame(self, text: str, *, drop: bool | None = None) -> int:
        """The number of a timecode's frame, counted from the film's first. What lies before it is of the next day.

        Args:
            text: a timecode.
            drop: as for `base_of`.

        Raises:
            InvalidTimecode: it is none at this rate.
        """
        base = self.base_of(text, drop=drop)
        return int(self.after_midnight(base.parse(text), base))

    def after_midnight(self, number: float, base: Timebase) -> float:
        """A frame number since 00:00:00:00, counted from the film's first frame."""
        since = number - self._start
        # A second before the start may be a list's inaccuracy.
        return since if since >= -base.nominal else since + base.frames_a_day

    def seconds(self, frame: float, picture: int | None = None) -> float:
        """When a frame is shown.

        Args:
            frame: counted from the film's first.
            picture: its number in the film as the list has it; it counts where it has this frame's timecode.
        """
        first = self._borders[0]
        if picture is not None and 0 <= picture < len(self._borders):
            seconds = self._borders[picture]
            if self.base.frame_at(seconds - first) == frame:
                return seconds
        return float(first + frame / self.base.rate)

    def picture_after(self, seconds: float) -> float:
        """When the next picture comes after the one nearest to a time."""
        return self._borders[min(nearest(self._borders, seconds) + 1, len(self._borders) - 1)]


def nearest(times: Sequence[float], time: float) -> int:
    """The number of the nearest of some times in order."""
    after = min(bisect_left(times, time), len(times) - 1)
    return after - 1 if after and time - times[after - 1] < times[after] - time else after
