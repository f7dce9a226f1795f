"""Timecode against that of FFmpeg's library (ffprobe's) and of OpenTimelineIO, and its own properties."""

from __future__ import annotations

import ctypes
import random
import re
from collections.abc import Sequence
from fractions import Fraction

import av
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentimelineio.opentime import RationalTime, from_timecode

from qwen_shots.client.timecode import InvalidTimecode, Timebase, can_drop, timecode_rate, usual_rate
from qwen_shots.errors import InvalidInput

NTSC_FILM, NTSC, NTSC_FAST = (Fraction(rate * 1000, 1001) for rate in (24, 30, 60))
DROP = [Timebase(NTSC, drop=True), Timebase(NTSC_FAST, drop=True)]
NON_DROP = [Timebase(rate) for rate in (NTSC_FILM, NTSC, NTSC_FAST, *map(Fraction, (24, 25, 30, 50, 60)))]

# At every rate that a film may have, each in all ways that there are to count.
EVERY = [
    Timebase(rate, drop)
    for rate in (
        *map(Fraction, (1, 6, 10, 12, 15, 18, 24, 25, 30, 48, 50, 60, 72, 90, 96, 100, 120, 150, 240)),
        *(Fraction(rate * 1000, 1001) for rate in (15, 24, 30, 48, 60, 120, 240)),
    )
    for drop in (False, True)
    if can_drop(rate) or not drop
]

timebases = st.sampled_from([*DROP, *NON_DROP])
# Six million frames are more than a day at any of these rates.
frames = st.integers(0, 6_000_000)


# --- other people's arithmetic ---------------------------------------------------------------------------------------


class AVRational(ctypes.Structure):
    _fields_ = [("num", ctypes.c_int), ("den", ctypes.c_int)]


class AVTimecode(ctypes.Structure):
    _fields_ = [("start", ctypes.c_int), ("flags", ctypes.c_uint32), ("rate", AVRational), ("fps", ctypes.c_uint)]


# Everything that PyAV's own library is linked to, libavutil among it.
LIBAVUTIL = ctypes.CDLL(av._core.__file__)
LIBAVUTIL.av_timecode_init.argtypes = [
    ctypes.POINTER(AVTimecode), AVRational, ctypes.c_int, ctypes.c_int, ctypes.c_void_p
]  # fmt: skip
LIBAVUTIL.av_timecode_init_from_string.argtypes = [
    ctypes.POINTER(AVTimecode), AVRational, ctypes.c_char_p, ctypes.c_void_p
]  # fmt: skip
AV_TIMECODE_FLAG_DROPFRAME, AV_TIMECODE_FLAG_24HOURSMAX = 1, 2


def ffmpegs_texts(base: Timebase, frames: Sequence[int]) -> list[str]:
    timecode, text = AVTimecode(), ctypes.create_string_buffer(64)
    rate = AVRational(base.rate.numerator, base.rate.denominator)
    flags = AV_TIMECODE_FLAG_24HOURSMAX | (AV_TIMECODE_FLAG_DROPFRAME if base.drop else 0)
    assert LIBAVUTIL.av_timecode_init(ctypes.byref(timecode), rate, flags, 0, None) == 0
    texts = []
    for frame in frames:
        LIBAVUTIL.av_timecode_make_string(ctypes.byref(timecode), text, frame)
        texts.append(text.value.decode())
    return texts


def ffmpegs_frames(base: Timebase, texts: Sequence[str]) -> list[int]:
    timecode = AVTimecode()
    rate = AVRational(base.rate.numerator, base.rate.denominator)
    frames = []
    for text in texts:
        assert LIBAVUTIL.av_timecode_init_from_string(ctypes.byref(timecode), rate, text.encode(), None) == 0
        frames.append(timecode.start)
    return frames


def padded(text: str) -> str:
    """FFmpeg writes frames with one digit up to 10 frames a second; here they have two."""
    return re.sub(r":(\d)$", r":0\1", text)


def some_frames(base: Timebase, count: int) -> list[int]:
    """At random over two days, and those around the first minutes."""
    minute = base.nominal * 60
    around = [minute * number + beside for number in (0, 1, 9, 10, 11, 60) for beside in range(-20, 21)]
    seeded = random.Random(7)
    at_random = (seeded.randrange(2 * base.frames_a_day) for _ in range(count))
    return [*(frame for frame in around if frame >= 0), *at_random]


@pytest.mark.parametrize("count", [500, pytest.param(100_000, marks=pytest.mark.acceptance)])
@pytest.mark.parametrize("base", EVERY, ids=lambda base: f"{base.named}{' drop' if base.drop else ''}")
def test_it_is_ffprobes(base: Timebase, count: int) -> None:
    frames = some_frames(base, count)
    texts = [base.text(frame) for frame in frames]
    assert texts == [padded(text) for text in ffmpegs_texts(base, frames)]
    wrapped = [frame % base.frames_a_day for frame in frames]
    assert [base.parse(text) for text in texts] == wrapped
    assert ffmpegs_frames(base, texts) == wrapped


@pytest.mark.parametrize("count", [500, pytest.param(100_000, marks=pytest.mark.acceptance)])
@pytest.mark.parametrize("base", [*DROP, *NON_DROP], ids=lambda base: f"{base.named}{' drop' if base.drop else ''}")
def test_it_is_opentimelineios_over_many_frames(base: Timebase, count: int) -> None:
    rate = float(base.rate)
    # OpenTimelineIO 0.18 begins a new day at the length of drop-frame's, for others of these rates too.
    day = Timebase(base.rate, drop=base.rate in {NTSC, NTSC_FAST}).frames_a_day
    frames = [frame % day for frame in some_frames(base, count)]
    texts = [base.text(frame) for frame in frames]
    assert texts == [RationalTime(frame, rate).to_timecode(rate, base.drop) for frame in frames]
    assert frames == [from_timecode(text, rate).value for text in texts]


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


def test_cameras_drop_at_whole_rates_too() -> None:
    """Apple's do; the frame is Final Cut Pro's own, 298851/5 s at 30 frames a second."""
    base = Timebase(Fraction(30), drop=True)
    assert base.seconds_at(base.parse("16:37:10;02")) == Fraction(298_851, 5)
    assert base.text(base.parse("16:37:59;29") + 1) == "16:38:00;02"
    assert Timebase(Fraction(60), drop=True).text(3600) == "00:01:00;04"


def test_drop_frame_is_for_multiples_of_30_alone() -> None:
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


@pytest.mark.parametrize(
    ("rate", "counted"),
    [
        (Fraction(589, 20), 30),  # a phone's film that lost every 50th picture
        (Fraction("29.6"), 30),
        (Fraction("24.9"), 25),
        (Fraction("59.1"), 60),
        (Fraction("14.6"), 15),
        (Fraction(12), 12),
        (Fraction(1000), 1000),
        (Fraction("12.5"), 25),
        (Fraction("7.5"), 15),
        (Fraction("0.4"), 24),
        (Fraction(15_000, 1001), Fraction(15_000, 1001)),
        (Fraction("29.97"), NTSC),
    ],
)
def test_timecode_counts_at_whole_rates(rate: Fraction, counted: Fraction) -> None:
    assert timecode_rate(rate) == counted
    assert timecode_rate(timecode_rate(rate)) == counted


def test_three_digits_are_frames_only_where_there_are_so_many() -> None:
    with pytest.raises(InvalidTimecode):
        Timebase(Fraction(24)).parse("00:00:04:010")
    assert Timebase(Fraction(120)).parse("00:00:04:110") == 590
    assert Timebase(Fraction(10)).parse("00:00:04:5") == 45  # as ffmpeg writes it
