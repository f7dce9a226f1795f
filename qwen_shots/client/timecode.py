"""Frame numbers and SMPTE timecode (SMPTE ST 12-1), in whole numbers throughout.

Timecode counts frames in a whole number a second. Film for NTSC runs a thousandth slower (24000/1001, 30000/1001,
60000/1001 frames a second), so its timecode falls behind the clock by 3.6 s an hour. Drop-frame timecode makes up for
it, at 29.97 and 59.94 frames a second only: it leaves out the first 2 (4) numbers of each minute but every tenth.
No frame is ever lost by that, only numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from qwen_shots.errors import InvalidInput

SECONDS_A_DAY = 86_400
MINUTES_A_DAY = 1_440

# Rates that a file tells as a rounded decimal, or as an average over the whole film, are meant as these.
USUAL_RATES = (
    *(Fraction(rate) for rate in (24, 25, 30, 48, 50, 60, 100, 120)),
    *(Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120)),
)
# 24 and 24000/1001 lie a thousandth apart.
RATE_TOLERANCE = Fraction(1, 5000)

_TIMECODE = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.,])(\d\d\d?)")
DROP_MARKS = ";,"


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
            raise InvalidInput(f"drop-frame timecode exists at 29.97 and 59.94 frames a second, not at {self.named}")

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
        return int(Fraction(seconds) * self.rate + Fraction(1, 2))

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
        width = 2 if self.nominal <= 100 else 3
        return f"{hours:02}:{minutes:02}:{seconds:02}{';' if self.drop else ':'}{frames:0{width}}"

    def parse(self, text: str) -> int:
        """The frame of a timecode. The last mark may be `:`, `;`, `.` or `,`, whatever this timebase writes.

        Raises:
            InvalidTimecode: it is none, is out of range, or one of the numbers that are left out.
        """
        found = _TIMECODE.fullmatch(text)
        if not found:
            raise InvalidTimecode("a timecode looks like 01:00:00:00 (hours, minutes, seconds, frames)")
        hours, minutes, seconds, frames = (int(found[group]) for group in (1, 2, 3, 5))
        if hours > 23 or minutes > 59 or seconds > 59 or frames >= self.nominal:
            raise InvalidTimecode(f"a timecode goes to 23:59:59:{self.nominal - 1} at {self.named} frames a second")
        if self.drop and minutes % 10 and seconds == 0 and frames < self._dropped_a_minute:
            raise InvalidTimecode("drop-frame timecode leaves out the first numbers of this minute")
        minutes += hours * 60
        return (minutes * 60 + seconds) * self.nominal + frames - self._dropped_before(minutes)

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
    return rate in {Fraction(30_000, 1001), Fraction(60_000, 1001)}


def as_marked(rate: Fraction, timecode: str) -> Timebase:
    """How a timecode counts: with dropped numbers where it is marked so and the rate has them."""
    return Timebase(rate, any(mark in timecode for mark in DROP_MARKS) and can_drop(rate))


def usual_rate(rate: Fraction) -> Fraction:
    """The rate that is meant: 23.976 is 24000/1001. A rate near none of the usual ones stays as it is."""
    nearest = min(USUAL_RATES, key=lambda usual: abs(usual - rate))
    return nearest if abs(nearest - rate) <= nearest * RATE_TOLERANCE else rate
