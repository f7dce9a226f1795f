"""Frame numbers and SMPTE timecode (SMPTE ST 12-1, and ST 12-3 above 60 frames a second), in whole numbers throughout.

Timecode counts frames in a whole number a second. Film for NTSC runs a thousandth slower (24000/1001, 30000/1001,
60000/1001 frames a second), so its timecode falls behind the clock by 3.6 s an hour. Drop-frame timecode makes up for
it: at 30 numbers a second it leaves out the first 2 of each minute but every tenth, at 60 the first 4. No frame is ever
lost by that, only numbers. Cameras count so at exactly 30 and 60 frames a second too, where it runs ahead of the clock.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

from qwen_shots.errors import InvalidInput

SECONDS_A_DAY = 86_400
MINUTES_A_DAY = 1_440

# Rates that a file gives as a rounded decimal, or as an average over the whole film, are meant as these.
USUAL_RATES = (
    *(Fraction(rate) for rate in (24, 25, 30, 48, 50, 60, 100, 120, 240)),
    *(Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120, 240)),
)
# 24 and 24000/1001 lie a thousandth apart.
RATE_TOLERANCE = Fraction(1, 5000)
# Numbers a second for films that have no rate that timecode can count.
WHOLE_RATES = (15, 24, 25, 30, 48, 50, 60, 100, 120, 240)
# A browser's or a phone's recording loses pictures and seldom has more than its rate says.
AVERAGE_TOLERANCE = Fraction(2, 100)

_TIMECODE = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.,])(\d{1,3})")
DROP_MARKS = ";,"
DROP_RATES = frozenset({30, 60, 120})  # and a thousandth less


class InvalidTimecode(InvalidInput):
    """A text is no timecode of this rate."""

    slug = "invalid-timecode"
    title = "The timecode is not valid"


@dataclass(frozen=True, slots=True)
class Timebase:
    """How frames are counted.

    Attributes:
        rate: frames a second, exactly.
        drop: whether the count leaves out numbers to stay with the clock.
    """

    rate: Fraction
    drop: bool = False

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise InvalidInput("a frame rate must be above 0")
        if self.drop and not can_drop(self.rate):
            raise InvalidInput(
                "drop-frame timecode exists at 29.97, 59.94 and 119.88 frames a second, and at 30, 60 and 120, not at "
                f"{self.named}"
            )

    @property
    def nominal(self) -> int:
        """Frame numbers a second: 24 for 23.976, 30 for 29.97."""
        return max(1, round(self.rate))

    @property
    def named(self) -> str:
        """The rate as people write it: 23.976, 25, 29.97."""
        return f"{float(self.rate):.3f}".rstrip("0").rstrip(".")

    @property
    def frames_a_day(self) -> int:
        """Frame numbers from 00:00:00:00 until they begin anew."""
        return self.nominal * SECONDS_A_DAY - self._dropped_before(MINUTES_A_DAY)

    def frame_at(self, seconds: float) -> int:
        """The frame whose start lies nearest to a time in seconds; a time exactly between two is the later one's."""
        return math.floor(Fraction(seconds) * self.rate + Fraction(1, 2))

    def seconds_at(self, frame: int) -> Fraction:
        """When a frame starts, in seconds."""
        return frame / self.rate

    def text(self, frame: int) -> str:
        """A frame's timecode, `01:00:00:00`, with `;` before the frames where numbers are dropped. A day wraps."""
        number = frame % self.frames_a_day
        if self.drop:
            number += self._dropped_until(number)
        seconds, frames = divmod(number, self.nominal)
        minutes, seconds = divmod(seconds, 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours:02}:{minutes:02}:{seconds:02}{';' if self.drop else ':'}{frames:0{self._digits}}"

    def parse(self, text: str) -> int:
        """The frame of a timecode. The last mark may be `:`, `;`, `.` or `,`, whatever this timebase writes.

        Raises:
            InvalidTimecode: it is none, is out of range, or one of the numbers that are left out.
        """
        found = _TIMECODE.fullmatch(text)
        if not found or not self._fewest_digits <= len(found[5]) <= self._digits:
            raise InvalidTimecode("a timecode looks like 01:00:00:00 (hours, minutes, seconds, frames)")
        hours, minutes, seconds, frames = (int(found[group]) for group in (1, 2, 3, 5))
        if hours > 23 or minutes > 59 or seconds > 59 or frames >= self.nominal:
            raise InvalidTimecode(f"a timecode goes to 23:59:59:{self.nominal - 1:02} at {self.named} frames a second")
        if self.drop and minutes % 10 and seconds == 0 and frames < self._dropped_a_minute:
            raise InvalidTimecode("drop-frame timecode leaves out the first numbers of this minute")
        minutes += hours * 60
        return (minutes * 60 + seconds) * self.nominal + frames - self._dropped_before(minutes)

    @property
    def _digits(self) -> int:
        """Of a frame's number."""
        return 2 if self.nominal <= 100 else 3

    @property
    def _fewest_digits(self) -> int:
        """As FFmpeg writes it."""
        return 1 if self.nominal <= 10 else 2

    @property
    def _dropped_a_minute(self) -> int:
        return self.nominal // 15 if self.drop else 0

    def _dropped_before(self, minutes: int) -> int:
        """How many numbers are left out before a minute of the day."""
        return self._dropped_a_minute * (minutes - minutes // 10)

    def _dropped_until(self, frame: int) -> int:
        """How many numbers are left out before a frame."""
        a_minute = self.nominal * 60 - self._dropped_a_minute
        tens, rest = divmod(frame, a_minute * 10 + self._dropped_a_minute)
        # The first of ten minutes is whole.
        minutes = max(0, rest - self._dropped_a_minute) // a_minute
        return self._dropped_a_minute * (9 * tens + minutes)


def can_drop(rate: Fraction) -> bool:
    """Whether drop-frame timecode exists at this rate."""
    return _counted(rate) and round(rate) in DROP_RATES


def as_marked(rate: Fraction, timecode: str) -> Timebase:
    """How a timecode counts: with dropped numbers where it is marked so and the rate has them."""
    return Timebase(rate, any(mark in timecode for mark in DROP_MARKS) and can_drop(rate))


def usual_rate(rate: Fraction) -> Fraction:
    """The rate that is meant: 23.976 is 24000/1001. A rate near none of the usual ones stays as it is."""
    nearest = min(USUAL_RATES, key=lambda usual: abs(usual - rate))
    return nearest if abs(nearest - rate) <= nearest * RATE_TOLERANCE else rate


def timecode_rate(rate: Fraction) -> Fraction:
    """The rate at which timecode counts a film of this rate.

    Timecode needs whole numbers a second, or a thousandth less. Where the film's rate is neither, each picture gets
    several numbers (12.5 is counted at 25); an average of uneven ones is counted at the next whole rate (29.45 at 30).
    """
    rate = usual_rate(rate)
    if _counted(rate):
        return rate
    multiples = (Fraction(whole) for whole in WHOLE_RATES if (whole / rate).denominator == 1)
    above = (Fraction(whole) for whole in WHOLE_RATES if whole >= rate * (1 - AVERAGE_TOLERANCE))
    return next(multiples, None) or next(above, Fraction(math.ceil(rate)))


def _counted(rate: Fraction) -> bool:
    """Whether there is a whole number of frames in a second, or in 1.001 s."""
    return rate.denominator == 1 or (rate * Fraction(1001, 1000)).denominator == 1
