"""One model, one batch at a time: look, score, caption.

The whole batch takes one forward pass over pictures, prompt and all questions (see `engines.packing`), then the cache
is cut back to the prompt and the captions are written from there, one token a step.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import DynamicCache

from engines.base import ShotPictures, ShotReading
from engines.packing import Branches, additive, pack_branches, pad_left, visibility
from engines.pixels import grid_of, to_patches, token_count
from engines.questions import Questions
from qwen_shots.errors import NotANumber
from qwen_shots.scoring import Reading, read_score

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from model_loader import LoadedModel

# Left over when a caption is cut in the middle of a character of several bytes.
BROKEN_CHARACTER = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prefixes of a batch.

    Attributes:
        ids: int64 of shape (rows, prefix), padded on the left.
        real: bool of the same shape, False on padding.
        positions: int64 of shape (3, rows, prefix): time, height, width.
        patches: float of shape (patches, values), all pictures of all rows.
        grids: int64 of shape (pictures, 3).
    """

    ids: Tensor
    real: Tensor
    positions: Tensor
    patches: Tensor
    grids: Tensor

    @property
    def next_position(self) -> Tensor:
        """The first free position behind each prefix, of shape (rows, 1)."""
        return self.positions.amax(dim=(0, 2))[:, None] + 1


class ModelRunner:
    """Asks one loaded model.

    Args:
        loaded: model, tokenizer and picture format.
        attributes: name to description, in the order in which they are asked.
        max_caption_tokens: where a caption is cut.
    """

    def __init__(self, loaded: LoadedModel, attributes: Mapping[str, str], max_caption_tokens: int) -> None:
        self._lm = loaded.model
        self._tokenizer = loaded.tokenizer
        self._pictures = loaded.pictures
        self._max_caption_tokens = max_caption_tokens
        self._attributes = list(attributes)
        self._questions = Questions(loaded.tokenizer, self._lm.config.image_token_id, attributes)
        self._device = self._lm.get_input_embeddings().weight.device
        self._stops = _stop_tokens(self._lm, self._tokenizer)
        # transformers renamed the argument in 5.24; the old name goes away in 5.40.
        names = inspect.signature(self._lm.model.language_model.forward).parameters
        self._cache_name = "cache" if "cache" in names else "past_key_values"

    def text_tokens(self, pictures: int) -> int:
        """Tokens that a shot of so many pictures costs beside them: instruction, marks and questions."""
        prefix = self._questions.prefix([0] * pictures)
        return len(prefix) + sum(map(len, self._questions.branches(pictures)))

    @torch.inference_mode()
    def look(self, shots: Sequence[ShotPictures]) -> list[ShotReading | NotANumber]:
        """Caption and score shots together. An answer does not depend on the batch that it was asked in.

        Returns:
            One answer a shot, in order; NotANumber where the model's numbers were none.
        """
        prompts = self._build_prompts(shots)
        branches = pack_branches([self._questions.branches(len(shot.pictures)) for shot in shots])
        cache = DynamicCache(config=self._lm.config.get_text_config())
        hidden = self._prefill(prompts, branches, cache)
        readings = self._read_scores(hidden, branches)
        cache.crop(-branches.ids.shape[1])
        captions = self._write_captions(prompts, cache)
        return list(map(self._answer, shots, captions, readings))

    def _build_prompts(self, shots: Sequence[ShotPictures]) -> Prompts:
        spec = self._pictures
        rows = [self._questions.prefix([token_count(p, spec) for p in shot.pictures]) for shot in shots]
        ids, real = pad_left(rows, fill=0)
        pictures = [picture for shot in shots for picture in shot.pictures]
        grids = torch.tensor([grid_of(picture, spec) for picture in pictures])
        positions, _ = self._lm.model.get_rope_index(
            input_ids=ids,
            mm_token_type_ids=(ids == self._questions.image_token).int(),
            image_grid_thw=grids,
            attention_mask=real.long(),
        )
        patches = torch.from_numpy(to_patches(pictures, spec))
        return Prompts(ids, real, positions, patches, grids)

    def _prefill(self, prompts: Prompts, branches: Branches, cache: DynamicCache) -> Tensor:
        """Hidden states of the branch tokens, of shape (rows, columns, width); the cache then holds everything."""
        asked = (prompts.next_position + branches.step).expand(3, -1, -1)
        hidden = self._forward(
            torch.cat([prompts.ids, branches.ids], dim=1),
            torch.cat([prompts.positions, asked], dim=2),
            visibility(prompts.real, branches),
            cache,
            pixel_values=prompts.patches.to(self._device),
            image_grid_thw=prompts.grids.to(self._device),
        )
        return hidden[:, prompts.ids.shape[1] :]

    def _forward(self, ids: Tensor, positions: Tensor, seen: Tensor, cache: DynamicCache, **pictures: Tensor) -> Tensor:
        output = self._lm.model(
            input_ids=ids.to(self._device),
            position_ids=positions.to(self._device),
            attention_mask=additive(seen, self._lm.dtype).to(self._device),
            use_cache=True,
            **{self._cache_name: cache},
            **pictures,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _probabilities(self, hidden: Tensor) -> Tensor:
        """Over the vocabulary, float32 of shape (..., vocabulary)."""
        head = self._lm.get_output_embeddings()
        return torch.softmax(head(hidden.to(head.weight.device)).float(), dim=-1)

    def _read_scores(self, hidden: Tensor, branches: Branches) -> list[list[Reading] | NotANumber]:
        """One reading a branch. The token before "0" tells "0" from "1", the "." behind it tells the first decimal."""
        row = torch.tensor([r for r, ends in enumerate(branches.ends) for _ in ends], device=hidden.device)
        end = torch.tensor([end for ends in branches.ends for end in ends], device=hidden.device)
        wholes = self._probabilities(hidden[row, end - 3])[:, self._questions.wholes].cpu().numpy()
        digits = self._probabilities(hidden[row, end - 1])[:, self._questions.digits].cpu().numpy()
        bounds = np.cumsum([len(ends) for ends in branches.ends])[:-1]
        return [
            _read_all(whole.tolist(), digit.tolist())
            for whole, digit in zip(np.split(wholes, bounds), np.split(digits, bounds), strict=True)
        ]

    def _write_captions(self, prompts: Prompts, cache: DynamicCache) -> list[str]:
        """The likeliest next token, again and again, until each row has stopped or is long enough."""
        rows = len(prompts.ids)
        seen = prompts.real
        ids = torch.tensor(self._questions.caption_cue).expand(rows, -1)
        position = prompts.next_position
        written: list[list[int]] = [[] for _ in range(rows)]
        open_rows = set(range(rows))
        for _ in range(self._max_caption_tokens):
            steps = ids.shape[1]
            seen = torch.cat([seen, torch.ones(rows, steps, dtype=torch.bool)], dim=1)
            mask = seen[:, None, None, :].expand(-1, -1, steps, -1).tril(seen.shape[1] - steps)
            hidden = self._forward(ids, (position + torch.arange(steps)).expand(3, -1, -1), mask, cache)
            ids = self._lm.get_output_embeddings()(hidden[:, -1:]).argmax(dim=-1).cpu()
            position = position + steps
            for row in list(open_rows):
                token = int(ids[row])
                if token in self._stops:
                    open_rows.remove(row)
                else:
                    written[row].append(token)
            if not open_rows:
                break
        return [self._to_text(tokens) for tokens in written]

    def _to_text(self, tokens: list[int]) -> str:
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return " ".join(text.rstrip(BROKEN_CHARACTER).split())

    def _answer(
        self, shot: ShotPictures, caption: str, readings: list[Reading] | NotANumber
    ) -> ShotReading | NotANumber:
        if isinstance(readings, NotANumber):
            return readings
        names = self._attributes
        by_frame = [readings[start : start + len(names)] for start in range(0, len(readings), len(names))]
        assert len(by_frame) == len(shot.pictures)
        return ShotReading(caption, {name: tuple(frame[a] for frame in by_frame) for a, name in enumerate(names)})


def _read_all(wholes: list[list[float]], digits: list[list[float]]) -> list[Reading] | NotANumber:
    try:
        return [read_score(*pair) for pair in zip(wholes, digits, strict=True)]
    except NotANumber as error:
        return error


def _stop_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Every token that ends an answer: the checkpoint's own list and the tokenizer's."""
    stops = model.generation_config.eos_token_id
    listed = stops if isinstance(stops, list) else [stops]
    return {token for token in (*listed, tokenizer.eos_token_id) if token is not None}
