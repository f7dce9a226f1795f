"""What `--where` takes, and how it says no."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_shots.client.where import MAX_LENGTH, InvalidWhere, Value, parse_where

NUMBERS = ["suspense", "motion", "duration"]
TEXTS = ["caption", "audio"]
SHOT: dict[str, Value] = {
    "suspense": 0.7,
    "motion": 0.25,
    "duration": 2.0,
    "caption": "A man walks at Night, by the ÖRESUND.",
    "audio": "music",
}


def meets(text: str, values: dict[str, Value] = SHOT) -> bool:
    return parse_where(text, NUMBERS, TEXTS)(values)


@pytest.mark.parametrize(
    "text",
    [
        "motion > 0.2 and duration > 1.2",
        "motion>.5 or suspense>=0.7",
        "not motion > 0.5",
        "0.2 < motion < 0.3",
        "motion == 0.25",
        "motion != suspense",
        "suspense > motion",
        "motion > -1",
        "(motion > 0.5 or duration == 2) and suspense < +1",
        'audio == "music"',
        "audio == 'MUSIC'",
        'audio in ("dialog", "music")',
        'audio not in ["dialog", "silent"]',
        '"night" in caption',
        '"öresund" in caption and "day" not in caption',
        "motion > 0.2\nand duration > 1.2",
        "1 < duration <= 2 and motion in (0.25, 3)",
    ],
)
def test_conditions(text: str) -> None:
    assert meets(text)
    assert not meets(f"not ({text})")


def test_a_missing_value_meets_no_comparison() -> None:
    silent = {**SHOT, "audio": None}
    assert not meets("audio == 'music'", silent)
    assert not meets("audio != 'music'", silent)
    assert not meets("audio not in ('music', 'dialog')", silent)
    assert meets("not audio == 'music'", silent)


@pytest.mark.parametrize(
    ("text", "words", "place"),
    [
        ("moton > 0.5", "is motion meant", 0),
        ("motion > 0.5 and speed > 1", "known are audio, caption, duration, motion, suspense", 17),
        ("motion >", "can't be read", 8),
        ("motion > (0.5", "can't be read", 9),
        ("motion > 0.5 && duration > 1", "can't be read", 14),
        ("audio == 'music' or motion = 0.5", "== compares", 27),
        ("motion", "a comparison is expected", 0),
        ("motion > 0.5 and suspense", "a comparison is expected", 17),
        ("motion > 'fast'", "a number can't be compared with a text", 9),
        ("'öö' == caption and caption > 'a'", "texts know", 30),
        ("motion > (1, 2)", "a list goes with in alone", 9),
        ("1 in motion", "in looks into", 5),
        ("motion > 1 + 1", "a name, a number or a text", 9),
        ("motion > True", "a name, a number or a text", 9),
        ("caption == -'a'", "a text has no sign", 12),
        ("motion is None", "a name, a number", 10),
        ("__import__('os').system('true') == 0", "a name, a number", 0),
        ("caption.__class__ == 'a'", "a name, a number", 0),
        ("(lambda: 1)() == 1", "a name, a number", 0),
        ("f'{motion}' == caption", "a name, a number", 0),
        ("", "can't be read", 0),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, words: str, place: int) -> None:
    with pytest.raises(InvalidWhere) as refused:
        meets(text)
    told, shown, mark = refused.value.detail.split("\n")
    assert words in told
    assert shown == f"  {text}"
    assert mark.index("^") - 2 == place


@pytest.mark.parametrize("text", ["(" * 300, "not " * 124 + "motion > 1", "-" * 400 + "1 < motion", "\0", "9" * 490])
def test_deep_and_odd_ones_are_no_crash(text: str) -> None:
    with suppress(InvalidWhere):
        meets(text)


def test_the_longest() -> None:
    assert meets("motion < 1".ljust(MAX_LENGTH))
    with pytest.raises(InvalidWhere, match="at most 500"):
        meets("motion < 1".ljust(MAX_LENGTH + 1))


@given(st.text(max_size=60) | st.text("motion audio'\"<>=!().,1-andorti\n", max_size=60))
def test_any_text_is_a_condition_or_an_error(text: str) -> None:
    try:
        assert meets(text) in {True, False}
    except InvalidWhere as refused:
        assert "\n  " in refused.detail
