"""What the model is asked, in words.

One conversation per shot: a system message that is the same for every shot, the key frames, and the start of the
assistant's answer. From there every question is a short branch of its own, and the caption another:

    system     You look at pictures from one shot of a film ... suspense: ... darkness: ...
    user       Picture 1: <picture> Picture 2: <picture> Picture 3: <picture>
    assistant  Picture 1, suspense: 0.     <- branch; the model's next token is the first decimal
               Picture 1, darkness: 0.     <- branch
               ...
               Caption:                    <- branch; the model goes on with one sentence

The chat template numbers the pictures ("Picture 1: ") when it is asked for vision ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CAPTION_CUE = "Caption:"

# Left over when a caption is cut in the middle of a character of several bytes.
BROKEN_CHARACTER = "\N{REPLACEMENT CHARACTER}"

# The tail of every score branch. The token before it is where "0" and "1" compete; after it, the ten digits do.
SCORE_TAIL = "0."


def instruction(attributes: Mapping[str, str]) -> str:
    """The system message: how pictures are judged, and what each attribute means.

    Args:
        attributes: name to description, in the order in which they are asked.
    """
    meanings = "\n".join(f"- {name}: {description}" for name, description in attributes.items())
    return (
        "You look at pictures from one shot of a film, in time order, and say how the shot feels. "
        "Each attribute is a number from 0.0 (not at all) to 1.0 (as much as can be):\n"
        f"{meanings}\n"
        "Judge each picture for itself, in the light of the others. "
        "The caption is one short sentence that says who or what is seen, where, when, and how the camera moves."
    )


def score_stem(picture: int, attribute: str) -> str:
    """The words before a score: `Picture 2, darkness: `. Pictures count from 1."""
    return f"Picture {picture}, {attribute}: "


def score_branch(picture: int, attribute: str) -> str:
    """One question, up to the point where the model names the first decimal: `Picture 2, darkness: 0.`"""
    return score_stem(picture, attribute) + SCORE_TAIL


def caption_of(written: str) -> str:
    """Find the caption in what the model wrote after the cue: a line break ends it.

    Behind that some models go on with a score or another caption.
    """
    lines = written.strip().splitlines()
    return " ".join(lines[0].rstrip(BROKEN_CHARACTER).split()) if lines else ""


def messages(attributes: Mapping[str, str], pictures: int) -> list[dict[str, Any]]:
    """The conversation for a chat template: the instruction, then `pictures` pictures.

    Returns:
        Messages as transformers' `apply_chat_template` takes them; render with `add_vision_id=True` and
        `add_generation_prompt=True`.
    """
    return [
        {"role": "system", "content": instruction(attributes)},
        {"role": "user", "content": [{"type": "image"} for _ in range(pictures)]},
    ]
