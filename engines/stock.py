"""Any family that transformers has, by transformers' own forward pass, on one device or over several.

The whole batch takes one forward pass over pictures, prompt and all questions (see `engines.packing`), then the cache
is cut back to the prompt and the captions are written from there, one token a step.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache

from engines.backbone import BackboneOutput
from engines.base import ShotPictures
from engines.packing import Branches, additive, pack_branches, pad_left, visibility
from engines.pixels import grid_of, to_patches, token_count

if TYPE_CHECKING:
    from torch import Tensor

    from engines.questions import Questions
    from model_loader import LoadedModel


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prefixes of a batch and its questions.

    Attributes:
        ids: int64 of shape (rows, prefix), padded on the left.
        real: bool of the same shape, False on padding.
        positions: int64 of shape (3, rows, prefix): time, height, width.
        patches: float of shape (patches, values), all pictures of all rows.
        grids: int64 of shape (pictures, 3).
        branches: the questions.
    """

    ids: Tensor
    real: Tensor
    positions: Tensor
    patches: Tensor
    grids: Tensor
    branches: Branches

    @property
    def next_position(self) -> Tensor:
        """The first free position behind each prefix, of shape (rows, 1)."""
        return self.positions.amax(dim=(0, 2))[:, None] + 1


class Stock:
    """Implements `engines.backbone.Backbone`.

    Args:
        loaded: model, tokenizer and picture format.
        questions: what it is asked.
        most_tokens: where a caption is cut.
        stops: tokens that end a caption.
    """

    def __init__(self, loaded: LoadedModel, questions: Questions, most_tokens: int, stops: Collection[int]) -> None:
        self._lm = loaded.model
        self._dtype = loaded.dtype
        self._pictures = loaded.pictures
        self._questions = questions
        self._most_tokens = most_tokens
        self._stops = stops
        self._device = self._lm.get_input_embeddings().weight.device
        # transformers renamed the argument in 5.24; the old name goes away in 5.40.
        names = inspect.signature(self._lm.model.language_model.forward).parameters
        self._cache_name = "cache" if "cache" in names else "past_key_values"

    def text_tokens(self, pictures: int) -> int:
        """Conversation, all questions and caption: nothing is shared."""
        asked = sum(map(len, self._questions.branches(pictures)))
        cue = len(self._questions.caption_cue)
        return len(self._questions.prefix([0] * pictures)) + asked + cue + self._most_tokens

    def warm_up(self, tokens: int, longest: int) -> None:
        """Nothing is kept ready."""

    def prepare(self, shots: Sequence[ShotPictures]) -> Prompts:
        """Everything that the host does for a batch."""
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
        branches = pack_branches([self._questions.branches(len(shot.pictures)) for shot in shots])
        return Prompts(ids, real, positions, torch.from_numpy(to_patches(pictures, spec)), grids, branches)

    @torch.inference_mode()
    def run(self, batch: Prompts, ask: Callable[[], None] | None = None) -> BackboneOutput:
        """Ask the model."""
        cache = DynamicCache(config=self._lm.config.get_text_config())
        hidden = self._prefill(batch, cache)
        if ask:
            ask()
        ends = batch.branches.ends
        row = torch.tensor([r for r, row_ends in enumerate(ends) for _ in row_ends], device=hidden.device)
        end = torch.tensor([end for row_ends in ends for end in row_ends], device=hidden.device)
        # The token before "0" tells "0" from "1", the "." behind it tells the first decimal.
        wholes = self._probabilities(hidden[row, end - 3])[:, self._questions.wholes].cpu()
        digits = self._probabilities(hidden[row, end - 1])[:, self._questions.digits].cpu()
        cache.crop(-batch.branches.ids.shape[1])
        return BackboneOutput(wholes, digits, list(map(len, ends)), self._write_captions(batch, cache))

    def _prefill(self, prompts: Prompts, cache: DynamicCache) -> Tensor:
        """Hidden states of the branch tokens, of shape (rows, columns, width); the cache then holds everything."""
        branches = prompts.branches
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
            attention_mask=additive(seen, self._dtype).to(self._device),
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

    def _write_captions(self, prompts: Prompts, cache: DynamicCache) -> Tensor:
        """The likeliest next token, again and again, until each row has stopped or is long enough."""
        rows = len(prompts.ids)
        seen = prompts.real
        ids = torch.tensor(self._questions.caption_cue).expand(rows, -1)
        position = prompts.next_position
        written: list[Tensor] = [torch.empty(rows, 0, dtype=torch.long)]
        stops = torch.tensor(sorted(self._stops), dtype=torch.long)
        ended = torch.zeros(rows, dtype=torch.bool)
        while len(written) <= self._most_tokens and not ended.all():
            steps = ids.shape[1]
            seen = torch.cat([seen, torch.ones(rows, steps, dtype=torch.bool)], dim=1)
            mask = seen[:, None, None, :].expand(-1, -1, steps, -1).tril(seen.shape[1] - steps)
            hidden = self._forward(ids, (position + torch.arange(steps)).expand(3, -1, -1), mask, cache)
            ids = self._lm.get_output_embeddings()(hidden[:, -1:]).argmax(dim=-1).cpu()
            position = position + steps
            written.append(ids)
            ended |= torch.isin(ids[:, 0], stops)
        return torch.cat(written, dim=1)
