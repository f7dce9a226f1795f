"""EDLs as editing programs write them. Expected stretches follow from how each list is made."""

from __future__ import annotations

import logging
from fractions import Fraction

import pytest

from qwen_shots.client.lists.edl import from_edl
from qwen_shots.client.lists.film_time import FilmTime, InvalidShotList

HEAD = "TITLE: T\nFCM: NON-DROP FRAME\n\n"
FIRST = "001  AX       V     C        00:00:00:00 00:00:04:00 01:00:00:00 01:00:04:00\n"
SECOND = "002  AX       V     C        00:00:04:00 00:00:08:00 01:00:04:00 01:00:08:00\n"
DISSOLVE = (
    "002  AX       V     C        00:00:04:00 00:00:04:00 01:00:04:00 01:00:04:00\n"
    "002  AX       V     D    024 00:00:10:00 00:00:14:00 01:00:04:00 01:00:08:00\n"
)
NTSC = Fraction(30_000, 1001)


def stretches(
    text: str, rate: Fraction = Fraction(24), start: str | None = None, pictures: int = 3000
) -> list[tuple[float, float]]:
    """Seconds of each shot, rounded to a thousandth."""
    borders = [float(number / rate) for number in range(pictures + 1)]
    listed = from_edl("list.edl", text, FilmTime(rate, start, borders))
    return [(round(shot.start, 3), round(shot.end, 3)) for shot in listed]


@pytest.mark.parametrize(
    "text",
    [
        HEAD + FIRST + SECOND,
        "* CREATED WITH PYSCENEDETECT 0.7.2\n" + HEAD + FIRST + SECOND,
        "TITLE: T\n* A NOTE\nFCM: NON-DROP FRAME\n" + FIRST + "* ANOTHER\n\n" + SECOND,
        FIRST + SECOND,
        (HEAD + FIRST + SECOND).replace("\n", "\r"),
        HEAD + FIRST.replace(" V ", " B ") + SECOND.replace(" V   ", " AA/V"),
        HEAD + FIRST + FIRST.replace("001", "002").replace(" V ", " AA") + SECOND.replace("002", "003"),
        HEAD + FIRST.replace("AX      ", "A074_08250956_C044") + SECOND.replace("AX      ", "A074_08250956_C044"),
        HEAD + FIRST.replace("AX ", "REEL 12") + SECOND.replace("AX ", "REEL 12"),
        HEAD + FIRST.replace("AX", "  ") + SECOND.replace("AX", "  "),
        "SPLIT:    AUDIO DELAY=  00:00:00:10\n" + FIRST + "AUD  3    4\n" + SECOND + ">>> SOURCE x\n |C:Blue |M:1\n",
        HEAD + "001  BL       V     C        00:00:00:00 00:00:02:00 00:59:58:00 01:00:00:00\n" + FIRST + SECOND,
        HEAD + FIRST.replace("001", "000").replace("AX ", "BLK") + FIRST + SECOND,
        HEAD + FIRST.replace("V     C", "v     c") + SECOND.replace("V     C", "b     c"),
        "999 CLPA V C     0 96 0  96\n1000 CLPA V C     96 192 96 192\n",
    ],
    ids=[
        "plain", "a comment first", "comments between", "no header", "old Mac", "sound too", "sound between",
        "long reel", "blank in the reel", "no reel", "other lines", "black", "BLK", "lower case", "frames, above 999",
    ],
)  # fmt: skip
def test_four_seconds_and_four(text: str) -> None:
    assert stretches(text) == [(0, 4), (4, 8)]


def test_a_fade_from_black_at_the_head() -> None:
    text = (
        HEAD + "001  BL       V     C        00:00:00:00 00:00:00:00 01:00:00:00 01:00:00:00\n"
        "001  AX       V     D    024 00:00:00:00 00:00:04:00 01:00:00:00 01:00:04:00\n" + SECOND
    )
    assert stretches(text) == [(0, 4), (4, 8)]


@pytest.mark.parametrize("kind", ["D   ", "W001"])
def test_transitions(kind: str) -> None:
    text = HEAD + FIRST + DISSOLVE.replace("D   ", kind) + "* FROM CLIP NAME: a\n* TO CLIP NAME: b\n"
    assert stretches(text) == [(0, 4), (10, 14)]
    names = [shot.name for shot in from_edl("list.edl", text, FilmTime(Fraction(24), None))]
    assert names == ["001", "b"]


def test_lower_case() -> None:
    text = (
        "title: T\nfcm: drop frame\n"
        "001  ax       v     c        00:00:00:00 00:02:00:04 01:00:00:00 01:01:00:02\n* from clip name: One\n"
        "m2   ax             059.9      00:00:00:00\n"
    )
    time = FilmTime(NTSC, "00:00:00:00")
    (shot,) = from_edl("list.edl", text, time)
    assert shot.name == "One"
    assert shot.end == pytest.approx(float(3600 / NTSC))


@pytest.mark.parametrize("clip", ["a.mov", "Night.mxf"])
@pytest.mark.parametrize("named", [0, 1])
def test_an_event_without_a_name_is_of_its_reels_file(clip: str, named: int) -> None:
    events = [FIRST, SECOND]
    events[named] += f"* FROM CLIP NAME:  {clip}\nEFFECTS NAME IS CROSS DISSOLVE\n"
    time = FilmTime(Fraction(24), None)
    assert [shot.medium for shot in from_edl("list.edl", HEAD + "".join(events), time)] == [clip, clip]
    other = SECOND.replace("002  AX ", "003  TAP") + SECOND.replace("002", "004") + "* SOURCE FILE: c.mov\n"
    media = [shot.medium for shot in from_edl("list.edl", HEAD + "".join(events) + other, time)]
    assert media == [clip if named == 0 else "AX", clip if named == 1 else "AX", "TAP", "c.mov"]


# --- how timecodes count ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [";", ":"])
def test_drop_frame_is_said_by_the_head_or_the_mark(mark: str) -> None:
    """30 s and 30.03 s of drop-frame numbers each are 900 frames."""
    text = (
        "TITLE: T\nFCM: DROP FRAME\n"
        "001  AX       V     C        00:59:30;00 01:00:00;00 01:00:00;00 01:00:30;00\n"
        "002  AX       V     C        01:00:30;00 01:01:00;02 01:00:30;00 01:01:00;02\n"
    ).replace(";", mark)
    at = [float(round(frame / NTSC, 3)) for frame in (900, 1800, 2700, 3600)]
    assert stretches(text, NTSC, "00:58:59;28", 4000) == [(at[0], at[1]), (at[2], at[3])]


def test_non_drop_numbers_of_a_film_that_drops() -> None:
    """Frame 1800 is 00:01:00;02, and 00:01:00:00 without dropping."""
    text = HEAD + "001  AX       V     C        00:01:00:00 00:01:10:00 01:00:00:00 01:00:10:00\n"
    assert stretches(text, NTSC, "00:00:00;00") == [(round(float(1800 / NTSC), 3), round(float(2100 / NTSC), 3))]


def test_drop_frame_where_there_is_none_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert stretches("FCM: DROP FRAME\n" + FIRST) == [(0, 4)]
    assert caplog.text.count("DROP FRAME, which does not exist at 24") == 1


def test_a_film_that_passes_midnight() -> None:
    text = HEAD + (
        "001  AX       V     C        23:59:56:00 00:00:01:00 23:59:58:00 00:00:03:00\n"
        "002  AX       V     C        00:00:01:00 00:00:03:12 00:00:03:00 00:00:05:12\n"
    )
    assert stretches(text, start="23:59:55:00") == [(1, 6), (6, 8.5)]


# --- speed -----------------------------------------------------------------------------------------------------------


def sped(source: str, speed: str, begins: str = "00:00:00:00") -> str:
    return HEAD + (
        f"001  AX       V     C        {source} 01:00:00:00 01:00:04:00\n* A NOTE\n"
        f"M2   AX             {speed}   {begins}\n"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (sped("00:00:00:00 00:00:08:00", "048.0"), (0, 8)),
        (sped("00:00:00:00 00:00:04:00", "048.0"), (0, 8)),  # Resolve writes the source as long as the record
        (sped("00:00:00:00 00:00:02:00", "012.0"), (0, 2)),
        (sped("00:00:00:00 00:00:04:00", "012.0"), (0, 2)),
        (sped("00:00:00:00 00:00:04:00", "024.0"), (0, 4)),
        (sped("00:00:03:00 00:00:03:01", "000.0", "00:00:03:00"), (3, round(73 / 24, 3))),
        (sped("00:00:03:00 00:00:07:00", "000.0", "00:00:03:00"), (3, round(73 / 24, 3))),
        (sped("00:00:04:00 00:00:08:00", "-024.0", "00:00:08:00"), (4, 8)),
        (sped("00:00:04:00 00:00:08:00", "-024.0", "00:00:07:23"), (4, 8)),
    ],
)
def test_speed_changes_show_another_stretch(text: str, expected: tuple[float, float]) -> None:
    assert stretches(text) == [expected]


def test_a_freeze_frame_is_one_picture() -> None:
    text = HEAD + FIRST.replace("00:00:04:00 01", "00:00:00:01 01") + "* FREEZE FRAME\n"
    assert stretches(text) == [(0, round(1 / 24, 3))]


def test_speed_is_of_the_transitions_line_that_has_a_length() -> None:
    text = (
        HEAD + FIRST + DISSOLVE.replace("00:00:14:00", "00:00:18:00") + "M2   AX             048.0      00:00:10:00\n"
    )
    assert stretches(text) == [(0, 4), (10, 18)]


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (HEAD + FIRST + "002  AX       V     C        soon\n", 5, "no event of CMX 3600"),
        (HEAD + FIRST.replace("04:00 01", "04:24 01"), 4, "goes to 23:59:59:23"),
        (HEAD + FIRST.replace("00:00:04:00 01", "00:00:08:00 01"), 4, "192 frames of the film take 96"),
        (HEAD + SECOND.replace("C   ", "K B ") + SECOND.replace("C        ", "K    000 "), 4, r"keys \(K\)"),
        (sped("00:00:04:00 00:00:08:00", "-024.0", "00:00:04:00"), 4, "backwards"),
        (sped("00:00:00:00 00:00:05:00", "048.0"), 4, "can't take 96"),
        (HEAD + FIRST + "M2   AX   fast\n", 5, "no speed change"),
        (HEAD + FIRST + FIRST + "M2   AX   048.0  00:00:00:00\n", 6, "not clear which line"),
        ("FCM: DROP FRAME\n" + FIRST.replace("00:00:00:00", "00:01:00:00"), 2, "leaves out"),
    ],
)
def test_what_no_list_of_shots_can_hold_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    rate = NTSC if "FCM: DROP" in text else Fraction(24)
    with pytest.raises(InvalidShotList, match=rf"list\.edl can't be read: line {line}: .*{words}"):
        stretches(text, rate)
