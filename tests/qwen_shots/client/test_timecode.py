"""Timecode against OpenTimelineIO's, and its own properties."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentimelineio.opentime import RationalTime, from_timecode

from qwen_shots.client.timecode import InvalidTimecode, Timebase, usual_rate
from qwen_shots.errors import InvalidInput

NTSC_FILM, NTSC, NTSC_FAST = (Fraction(rate * 1000, 1001) for rate in (24, 30, 60))
DROP = [Timebase(NTSC, drop=True), Timebase(NTSC_FAST, drop=True)]
NON_DROP = [Timebase(rate) for rate in (NTSC_FILM, NTSC, NTSC_FAST, *map(Fraction, (24, 25, 30, 50, 60)))]

timebases = st.sampled_from([*DROP, *NON_DROP])
# Six million frames are more than a day at any of these rates.
frames = st.integers(0, 6_000_000)


@given(timebases, frames)
@example(DROP[0], 1799)
@example(DROP[0], 1800)
@example(DROP[0], 17_982)
@example(DROP[1], 3600)
def test_it_is_opentimelineios(timebase: Timebase, frame: int) -> None:
    # OpenTimelineIO 0.18 begins a new day at the length of drop-frame's, for others of these rates too.
    frame %= Timebase(timebase.rate, drop=timebase.rate in {NTSC, NTSC_FAST}).frames_a_day
    rate = float(timebase.rate)
    assert timebase.text(frame) == RationalTime(frame, rate).to_timecode(rate, timebase.drop)
    assert from_timecode(timebase.text(frame), rate).value == frame


@given(timebases, frames)
def test_it_is_read_as_it_was_written(timebase: Timebase, frame: int) -> None:
    assert timebase.parse(timebase.text(frame)) == frame % timebase.frames_a_day


@given(timebases, frames)
def test_later_frames_have_later_timecodes(timebase: Timebase, frame: int) -> None:
    frame %= timebase.frames_a_day - 1
    assert timebase.text(frame) < timebase.text(frame + 1)


@given(st.sampled_from(DROP), frames)
def test_drop_frame_stays_with_the_clock(timebase: Timebase, frame: int) -> None:
    frame %= timebase.frames_a_day
    hours, minutes, seconds, part = (int(each) for each in timebase.text(frame).replace(";", ":").split(":"))
    shown = hours * 3600 + minutes * 60 + seconds + Fraction(part, timebase.nominal)
    assert abs(shown - timebase.seconds_at(frame)) < Fraction(1, 10)


def test_non_drop_falls_behind_by_three_seconds_and_a_half_an_hour() -> None:
    assert Timebase(NTSC).text(Timebase(NTSC).frame_at(3600)) == "00:59:56:12"
    assert Timebase(NTSC_FILM).text(Timebase(NTSC_FILM).frame_at(3600)) == "00:59:56:10"
    assert Timebase(NTSC, drop=True).text(Timebase(NTSC).frame_at(3600)) == "01:00:00;00"


@given(timebases, frames)
def test_times_find_their_frame_again(timebase: Timebase, frame: int) -> None:
    """As a file tells them: rounded to a float, or to a Matroska file's milliseconds."""
    seconds = timebase.seconds_at(frame)
    assert timebase.frame_at(float(seconds)) == frame
    assert timebase.frame_at(round(float(seconds), 3)) == frame


@pytest.mark.parametrize(
    "text", ["", "1:00:00:00", "01:00:00", "24:00:00:00", "00:60:00:00", "00:00:60:00", "00:00:00:30", "00:01:00;01"]
)
def test_what_is_no_timecode(text: str) -> None:
    with pytest.raises(InvalidTimecode):
        Timebase(NTSC, drop=True).parse(text)


@pytest.mark.parametrize("text", ["00:01:00;02", "00:10:00;00", "00:01:00:02"])
def test_numbers_that_drop_frame_keeps(text: str) -> None:
    timebase = Timebase(NTSC, drop=True)
    assert timebase.text(timebase.parse(text)) == text[:8] + ";" + text[9:]


def test_drop_frame_is_for_ntsc_alone() -> None:
    with pytest.raises(InvalidInput, match=r"not at 23\.976"):
        Timebase(NTSC_FILM, drop=True)
    with pytest.raises(InvalidInput):
        Timebase(Fraction(0))


@pytest.mark.parametrize(
    ("told", "meant"),
    [
        (Fraction("23.976"), NTSC_FILM),
        (Fraction("29.97"), NTSC),
        (Fraction(19_001, 317), NTSC_FAST),
        (Fraction(24), Fraction(24)),
        (Fraction("24.001"), Fraction(24)),
        (Fraction("12.5"), Fraction("12.5")),
        (Fraction(27), Fraction(27)),
    ],
)
def test_rates_are_meant_as_the_usual_ones(told: Fraction, meant: Fraction) -> None:
    assert usual_rate(told) == meant
