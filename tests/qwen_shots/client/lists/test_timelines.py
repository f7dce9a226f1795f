"""OTIO timelines as editing programs write them, made with OpenTimelineIO itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from fractions import Fraction

import pytest
from opentimelineio.core import Composable, MediaReference
from opentimelineio.opentime import RationalTime, TimeRange
from opentimelineio.schema import (
    Clip,
    ExternalReference,
    FreezeFrame,
    Gap,
    GeneratorReference,
    LinearTimeWarp,
    MissingReference,
    SerializableCollection,
    Stack,
    TimeEffect,
    Timeline,
    Track,
    TrackKind,
    Transition,
)

from qwen_shots.client.lists.film_time import FilmTime, InvalidShotList
from qwen_shots.client.lists.timelines import from_timeline
from qwen_shots.errors import InvalidInput

RATE = 24
NTSC_FILM = Fraction(24_000, 1001)


def span(start: float, length: float, rate: float = RATE) -> TimeRange:
    return TimeRange(RationalTime(start, rate), RationalTime(length, rate))


def clip(
    name: str, start: float, length: float, media: MediaReference | None = None, rate: float = RATE, **more: object
) -> Clip:
    media = media or ExternalReference("file:///x.mov", span(0, 720))
    return Clip(name, media, span(start, length, rate), **more)


def text(*tracks: Sequence[Composable]) -> str:
    timeline = Timeline("cut")
    for children in tracks:
        track = Track("V", kind=TrackKind.Video)
        track.extend(children)
        timeline.tracks.append(track)
    return str(timeline.to_json_string())


def stretches(
    timeline: str, rate: Fraction = Fraction(RATE), start: str | None = None
) -> list[tuple[str | None, float, float]]:
    time = FilmTime(rate, start, [float(number / rate) for number in range(1441)])
    return [
        (shot.name, round(shot.start, 3), round(shot.end, 3)) for shot in from_timeline("list.otio", timeline, time)
    ]


def warped(*effects: TimeEffect) -> Clip:
    return clip("a", 72, 96, effects=list(effects))


def disabled() -> Clip:
    off = clip("off", 0, 96)
    off.enabled = False
    return off


def nested(start: float, length: float) -> Stack:
    """Two clips, 4 s of each, in a sequence of which a part is shown."""
    inner = Track("V", kind=TrackKind.Video)
    inner.extend([clip("a", 0, 96), clip("c", 480, 96)])
    stack = Stack("nested", source_range=span(start, length))
    stack.append(inner)
    return stack


B = ("b", 10.0, 14.0)
HALF_A_SECOND = RationalTime(12, 24)


@pytest.mark.parametrize(
    ("children", "expected"),
    [
        ([clip("a", 0, 96)], [("a", 0, 4)]),
        ([clip("a", 0, 96), Gap(source_range=span(0, 24))], [("a", 0, 4)]),
        ([clip("a", 0, 96), Transition("d", "SMPTE_Dissolve", HALF_A_SECOND, HALF_A_SECOND)], [("a", 0, 4)]),
        ([warped(LinearTimeWarp("w", time_scalar=2))], [("a", 3, 11)]),
        ([warped(LinearTimeWarp("w", time_scalar=0.5))], [("a", 3, 5)]),
        ([warped(FreezeFrame("f"))], [("a", 3, round(73 / 24, 3))]),
        ([disabled()], []),
        ([clip("title", 0, 48, GeneratorReference("t", "text"))], []),
        ([nested(0, 96)], [("a", 0, 4)]),
        ([nested(48, 96)], [("a", 2, 4), ("c", 20, 22)]),
        ([nested(0, 192)], [("a", 0, 4), ("c", 20, 24)]),
        ([clip("", 0, 96)], [(None, 0, 4)]),
    ],
    ids=[
        "plain", "gap", "dissolve", "twice as fast", "half as fast", "freeze frame", "disabled", "title",
        "nested, first half", "nested, middle", "nested, whole", "no name",
    ],
)  # fmt: skip
def test_what_is_shown(children: list[Composable], expected: list[tuple[str | None, float, float]]) -> None:
    assert stretches(text([*children, clip("b", 240, 96)])) == [*expected, B]


def test_a_part_of_a_faster_clip() -> None:
    inner = Track("V", kind=TrackKind.Video)
    inner.append(clip("a", 24, 96, effects=[LinearTimeWarp("w", time_scalar=2)]))
    stack = Stack("nested", source_range=span(48, 24))
    stack.append(inner)
    # The clip begins at 1 s of the film; 2 s of it are skipped at double speed, and 1 s is shown.
    assert stretches(text([stack])) == [("a", 5, 7)]


def test_tracks() -> None:
    above = [Gap(source_range=span(0, 48)), clip("b", 240, 96)]
    assert stretches(text([clip("a", 0, 192)], above, [])) == [("a", 0, 8), B]
    sound = Track("A", kind=TrackKind.Audio)
    sound.append(clip("sound", 480, 96))
    hidden = Track("V2", kind=TrackKind.Video)
    hidden.append(clip("hidden", 480, 96))
    hidden.enabled = False
    timeline = Timeline("cut")
    timeline.tracks.extend([sound, hidden])
    assert stretches(str(timeline.to_json_string())) == []


@pytest.mark.parametrize(
    ("media", "rate"),
    [
        (MissingReference(), 24),
        (MissingReference(), float(NTSC_FILM)),
        (ExternalReference("file:///x.mov", span(86_400, 720)), 24),
        (ExternalReference("file:///x.mov", span(0, 720)), 24),
        (ExternalReference("file:///x.mov"), 24),
    ],
    ids=["no media", "no media, 23.976", "media by timecode", "media from 0", "media of no length"],
)
def test_timecodes_of_2398_film(media: MediaReference, rate: float) -> None:
    """Frame 96 of a film that starts at 01:00:00:00, whether its timeline says 24 frames a second or 23.976."""
    timeline = text([clip("a", 86_400 + 96, 96, media, rate)])
    assert stretches(timeline, NTSC_FILM, "01:00:00:00") == [("a", 4.004, 8.008)]


def test_a_film_that_passes_midnight() -> None:
    timeline = text([clip("a", 24, 24, MissingReference())])
    assert stretches(timeline, start="23:59:55:00") == [("a", 6, 7)]


def stack_that_is_faster() -> Stack:
    stack = nested(0, 96)
    stack.effects.append(LinearTimeWarp("w", time_scalar=2))
    return stack


@pytest.mark.parametrize(
    ("timeline", "words"),
    [
        (text([warped(LinearTimeWarp("w", time_scalar=-1))]), "the clip 'a' is played backwards"),
        (text([warped(TimeEffect("t"))]), "the clip 'a' is changed by an unknown effect"),
        (text([stack_that_is_faster()]), "the stack 'nested' is a nested sequence whose speed"),
        (text([Clip("a")]), "the clip 'a' says neither where it begins"),
        (str(SerializableCollection("c").to_json_string()), "no timeline, but a SerializableCollection"),
        ("[", "no timeline that OpenTimelineIO can read"),
        ("{}", "can't be read"),
        ('{"OTIO_SCHEMA": "Timeline.1", "tracks": 5}', "no timeline that OpenTimelineIO can read"),
        ("[" * 100_000, "no timeline that OpenTimelineIO can read"),
    ],
)
def test_what_no_list_of_shots_can_hold_is_refused_by_name(timeline: str, words: str) -> None:
    with pytest.raises(InvalidShotList, match=rf"list\.otio can't be read: .*{words}" if words[0] != "c" else words):
        stretches(timeline)


def test_without_opentimelineio_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentimelineio", None)
    with pytest.raises(InvalidInput, match="pip install opentimelineio"):
        stretches("{}")
