"""Captions found by words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_shots.client.words import similarity

CAPTIONS = [
    "A man walks through a dark forest.",
    "A dragon flies over a city at night.",
    "Two men walking in the darkness of a corridor.",
    "A city at night, seen from far above; cars, trains, bridges, towers and a river.",
    "",
]


def found(words: str) -> list[int]:
    """The captions that fit at all, the best first."""
    scores = similarity(CAPTIONS, words)
    return sorted((place for place, score in enumerate(scores) if score > 0), key=lambda place: -scores[place])


@pytest.mark.parametrize(
    ("words", "places"),
    [
        ("dragon", [1]),
        ("DRAGON!", [1]),
        ("dark", [0, 2]),
        ("darkness", [2, 0]),
        ("walking", [2, 0]),
        ("city night", [1, 3]),
        ("dragon city", [1, 3]),
        ("spaceship", []),
        ("", []),
        ("?!", []),
    ],
)
def test_the_best_first(words: str, places: list[int]) -> None:
    assert found(words) == places


@given(st.lists(st.text(max_size=30), max_size=6), st.text(max_size=20))
def test_any_texts(captions: list[str], words: str) -> None:
    scores = similarity(captions, words)
    assert len(scores) == len(captions)
    assert all(score >= 0 for score in scores)
