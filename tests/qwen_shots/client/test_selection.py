"""Which shots are picked, and in which order."""

from __future__ import annotations

import pytest

from qwen_shots.client.selection import Wanted, moment, select
from qwen_shots.client.store import ErrorRecord, ShotRecord
from qwen_shots.errors import InvalidInput

SCORES = [0.2, 0.9, 0.5, 0.9]
SHOTS = [
    *(
        ShotRecord(n, n * 10.0 - 10, n * 10.0, 0, 0, caption="c", scores={"suspense": score, "start": 1 - score})
        for n, score in enumerate(SCORES, start=1)
    ),
    ShotRecord(5, 40.0, 50.0, 0, 0, error=ErrorRecord("urn:x", "Failed", "why")),
]


def picked(**wanted: str | int) -> list[int]:
    return [shot.number for shot in select(SHOTS, 50.0, Wanted(**wanted))]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({}, [1, 2, 3, 4]),
        ({"by": "suspense"}, [2, 4, 3, 1]),
        ({"by": "suspense", "top": 2}, [2, 4]),
        ({"by": "start"}, [4, 3, 2, 1]),
        ({"by": "score_start"}, [1, 3, 2, 4]),
        ({"until": "70%"}, [1, 2, 3]),
        ({"until": "0:20"}, [1, 2]),
        ({"where": "suspense > 0.3 and duration > 1.2", "until": "30"}, [2, 3]),
    ],
)
def test_picks(wanted: dict[str, str | int], numbers: list[int]) -> None:
    assert picked(**wanted) == numbers


def test_a_length_is_not_less_than_it_is_for_the_sake_of_a_sum() -> None:
    shot = ShotRecord(1, 0.3, 0.3 + 0.7, 0, 0, caption="c")
    later = ShotRecord(2, 14.0 + 1 / 3, 16.0 + 1 / 3, 0, 0, caption="c")
    assert later.duration < 2
    assert select([shot, later], 20.0, Wanted(where="duration >= 2")) == [later]
    assert select([shot, later], 20.0, Wanted(until="16.333333")) == [shot, later]


def test_what_it_refuses() -> None:
    with pytest.raises(InvalidInput, match="they can by duration, end, score_start, shot, start, suspense"):
        picked(by="fear")
    with pytest.raises(InvalidInput, match="at least 1"):
        picked(top=0)


@pytest.mark.parametrize(
    ("text", "seconds"), [("70%", 70.0), ("12.5%", 12.5), ("1:02:03.5", 3723.5), ("62:03", 3723.0), ("9", 9.0)]
)
def test_moments(text: str, seconds: float) -> None:
    assert moment(text, 100.0) == seconds


@pytest.mark.parametrize("text", ["", "%", "-5", "1:2:3:4", "nan", "1e3", "70 %"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(InvalidInput, match="looks like"):
        moment(text, 100.0)
