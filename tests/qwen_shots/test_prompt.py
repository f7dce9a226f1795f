"""The words asked of the model, and how its own template numbers the pictures."""

from __future__ import annotations

import re
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from qwen_shots import prompt
from settings import ATTRIBUTE_NAME, Settings
from tests.helpers import BUNDLED, ROOT

names = st.from_regex(ATTRIBUTE_NAME, fullmatch=True)
# What settings let through: 1 to 400 characters of any kind.
descriptions = st.text(st.characters(codec="utf-8"), min_size=1, max_size=400)
attributes = st.dictionaries(names, descriptions, min_size=1, max_size=64)

AWKWARD = {
    "quotes": """how "dark", 'dim' or `black` it is""",
    "braces": "{0} {{ attribute }} {% if x %} %s \\n $HOME",
    "umlauts": "wie düster 夜 🌒 es ist",
    "lines": "first line\nsecond line",
}


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(ROOT / BUNDLED)
    return loaded


def rendered(asked: dict[str, str], pictures: int) -> str:
    return str(
        tokenizer().apply_chat_template(
            prompt.messages(asked, pictures), tokenize=False, add_generation_prompt=True, add_vision_id=True
        )
    )


@given(asked=attributes)
def test_every_attribute_is_told_once_and_in_order(asked: dict[str, str]) -> None:
    assert Settings(attributes=asked).attributes == asked
    rest = prompt.instruction(asked)
    for name, description in asked.items():
        _, line, rest = rest.partition(f"\n- {name}: {description}")
        assert line, "told whole, after those before it"
    assert rest.startswith("\nJudge each picture")


@pytest.mark.parametrize("count", [1, 2, 6, 38, 64])
def test_any_number_of_attributes(count: int) -> None:
    asked = {f"attribute_{number}": f"meaning {number}" for number in range(count)}
    assert prompt.instruction(asked).count("\n- ") == count


def test_awkward_descriptions_reach_the_model_as_written() -> None:
    text = rendered(AWKWARD, 1)
    for name, description in AWKWARD.items():
        assert f"- {name}: {description}\n" in text


@given(picture=st.integers(1, 3), name=names)
def test_a_branch_is_its_stem_and_the_point(picture: int, name: str) -> None:
    assert prompt.score_stem(picture, name) == f"Picture {picture}, {name}: "
    assert prompt.score_branch(picture, name) == f"Picture {picture}, {name}: 0."


def test_questions_differ() -> None:
    asked = [prompt.score_branch(picture, name) for picture in (1, 2, 3) for name in AWKWARD]
    assert len({*asked, prompt.CAPTION_CUE}) == len(asked) + 1


@pytest.mark.parametrize("pictures", [1, 2, 3])
def test_the_template_numbers_the_pictures_as_the_questions_do(pictures: int) -> None:
    text = rendered(AWKWARD, pictures)
    shown = re.findall(r"(Picture \d+): <\|vision_start\|>", text)
    assert shown == [prompt.score_stem(number, "x").partition(",")[0] for number in range(1, pictures + 1)]


def test_the_instruction_is_one_text_whatever_the_pictures() -> None:
    # Its keys and values are computed once for all shots, so nothing of a shot may stand before its end.
    ends = {rendered(AWKWARD, pictures).partition("Picture 1: ")[0] for pictures in (1, 2, 3)}
    assert len(ends) == 1
    assert prompt.instruction(AWKWARD) in ends.pop()


@pytest.mark.parametrize(
    ("written", "caption"),
    [
        (" A man walks  in the snow.", "A man walks in the snow."),
        (" A man in the snow.\nPicture 1, suspense: 0.7", "A man in the snow."),
        ("\n\n A man.\r\nCaption: A dog.", "A man."),
        ("A man.\u2028Another", "A man."),
        ("A man \N{REPLACEMENT CHARACTER}", "A man"),
        ("A man \N{REPLACEMENT CHARACTER}\nMore", "A man"),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_a_line_break_ends_the_caption(written: str, caption: str) -> None:
    assert prompt.caption_of(written) == caption
