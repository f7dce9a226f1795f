"""The words of `qwen_shots.prompt` as token ids of one model, worked out once and kept.

Checks at load that the tokenizer splits a score as the engine reads it: "0", ".", and one token a digit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError

from model_loader import first_line
from qwen_shots import prompt
from qwen_shots.errors import CannotLoad
from qwen_shots.scoring import DIGITS
from served_models import check_answers_at_once


class Questions:
    """Token ids of the prefix, the branches and the labels.

    Args:
        tokenizer: the model's, with a chat template.
        image_token: the id that stands for one picture token.
        attributes: name to description, in the order in which they are asked.

    Raises:
        CannotLoad: the tokenizer splits scores otherwise than the engine reads them.
    """

    def __init__(self, tokenizer: Any, image_token: int, attributes: Mapping[str, str]) -> None:
        self.attributes = dict(attributes)
        self.image_token = image_token
        self.digits = [self._one_token(tokenizer, digit) for digit in DIGITS]
        self.wholes = self.digits[:2]
        self.caption_cue: list[int] = tokenizer.encode(prompt.CAPTION_CUE, add_special_tokens=False)
        self._tokenizer = tokenizer
        self._check_tail()
        # A shot has 1 to 3 key frames, so there are few distinct answers.
        self.branches = lru_cache(self._branches)
        self._frame_of = lru_cache(self._render)

    def prefix(self, picture_tokens: Sequence[int]) -> list[int]:
        """Instruction and pictures, up to where the assistant begins.

        Args:
            picture_tokens: tokens of each key frame.
        """
        ids: list[int] = []
        counts = iter(picture_tokens)
        for token in self._frame_of(len(picture_tokens)):
            ids += [token] * (next(counts) if token == self.image_token else 1)
        return ids

    def _render(self, pictures: int) -> tuple[int, ...]:
        try:
            text: str = self._tokenizer.apply_chat_template(
                prompt.messages(self.attributes, pictures),
                tokenize=False,
                add_generation_prompt=True,
                add_vision_id=True,
                enable_thinking=False,
            )
        except (TemplateError, TypeError) as error:
            raise CannotLoad(f"the checkpoint's chat template can't be rendered: {first_line(error)}") from error
        check_answers_at_once(text)
        ids = tuple(self._tokenizer.encode(text, add_special_tokens=False))
        if ids.count(self.image_token) != pictures:
            raise CannotLoad("the checkpoint's chat template does not place one picture token for each picture")
        return ids

    def _branches(self, pictures: int) -> tuple[tuple[int, ...], ...]:
        """One branch a question: all attributes of picture 1, then of picture 2, and so on."""
        return tuple(
            tuple(self._tokenizer.encode(prompt.score_branch(picture, attribute), add_special_tokens=False))
            for picture in range(1, pictures + 1)
            for attribute in self.attributes
        )

    def _check_tail(self) -> None:
        """The last two tokens are read apart: before "0" for the whole number, behind "." for the first decimal."""
        for branch in self._branches(1):
            if self._tokenizer.decode(branch[-2:]) != prompt.SCORE_TAIL or branch[-2] != self.digits[0]:
                raise CannotLoad('the tokenizer does not split "0." into a digit and a point')

    @staticmethod
    def _one_token(tokenizer: Any, text: str) -> int:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        if len(ids) != 1:
            raise CannotLoad(f"the tokenizer has no single token for {text}")
        return ids[0]
