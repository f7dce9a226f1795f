"""The plain ways that the server is held against: `generate` writes the scores, or each question is asked alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import torch

from engines.base import Picture, ShotPictures
from engines.pixels import grid_of, to_patches, token_count
from model_loader import LoadedModel
from qwen_shots import prompt
from qwen_shots.scoring import DIGITS

# The words of an answer don't depend on the model here: an untrained one would never stop.
CAPTION = "A person walks through a dark hallway at night, the camera follows."
FORMAT = "Answer as JSON with a caption and every attribute."


class Written:
    """Asks a model with transformers' own means.

    Args:
        loaded: model, tokenizer and picture format.
        attributes: name to description.

    Attributes:
        digits: token ids of "0" to "9".
    """

    def __init__(self, loaded: LoadedModel, attributes: Mapping[str, str]) -> None:
        self._loaded = loaded
        self._attributes = attributes
        self.digits = [loaded.tokenizer.encode(digit, add_special_tokens=False)[0] for digit in DIGITS]
        self._image = loaded.model.config.image_token_id

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._encode(text))

    def answer_tokens(self, pictures: int) -> int:
        """Tokens of a written answer: one caption, and each attribute of each picture."""
        scores = dict.fromkeys(self._attributes, 0.7)
        return self.count(json.dumps({"caption": CAPTION, "pictures": [scores] * pictures}))

    @torch.inference_mode()
    def write(self, rows: Sequence[Sequence[Picture]], tokens: int) -> int:
        """One `generate` over some rows of pictures of one size; returns the tokens written in each."""
        asked = self._inputs(rows, "", FORMAT)
        written = self._loaded.model.generate(**asked, min_new_tokens=tokens, max_new_tokens=tokens, do_sample=False)
        return int(written.shape[1] - asked["input_ids"].shape[1])

    def one_by_one(self, shot: ShotPictures) -> int:
        """A `generate` for each key frame, as long as a whole answer is."""
        return sum(self.write([[picture]], self.answer_tokens(1)) for picture in shot.pictures)

    def together(self, shot: ShotPictures) -> int:
        """One `generate` for all key frames, likewise."""
        return self.write([shot.pictures], self.answer_tokens(len(shot.pictures)))

    @torch.inference_mode()
    def ask_each(self, shot: ShotPictures) -> list[torch.Tensor]:
        """A forward pass for each question, pictures and instruction included; the logits of its last three tokens."""
        return [
            self._loaded.model(
                **self._inputs([shot.pictures], prompt.score_branch(number, name)), logits_to_keep=3
            ).logits
            for number in range(1, len(shot.pictures) + 1)
            for name in self._attributes
        ]

    def _inputs(self, rows: Sequence[Sequence[Picture]], stem: str, demand: str = "") -> dict[str, torch.Tensor]:
        spec, device = self._loaded.pictures, self._loaded.model.device
        pictures = [picture for row in rows for picture in row]
        ids = torch.tensor([self._row(row, stem, demand) for row in rows])
        patches = torch.from_numpy(to_patches(pictures, spec))
        inputs = {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "mm_token_type_ids": (ids == self._image).int(),
            "pixel_values": patches.to(self._loaded.model.dtype),
            "image_grid_thw": torch.tensor([grid_of(picture, spec) for picture in pictures]),
        }
        return {name: values.to(device) for name, values in inputs.items()}

    def _row(self, pictures: Sequence[Picture], stem: str, demand: str) -> list[int]:
        messages = prompt.messages(self._attributes, len(pictures))
        if demand:
            messages[1]["content"].append({"type": "text", "text": demand})
        text = self._loaded.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, add_vision_id=True
        )
        counts = (token_count(picture, self._loaded.pictures) for picture in pictures)
        return [
            token for one in self._encode(text + stem) for token in [one] * (next(counts) if one == self._image else 1)
        ]

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._loaded.tokenizer.encode(text, add_special_tokens=False)
        return ids
