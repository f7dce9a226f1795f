"""What the host does before a batch goes to the device: which token stands where, and the pictures' bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from engines.base import ShotPictures
from engines.qwen2vl.layout import BatchLayout, ShotLayout, lay_out_batch, lay_out_shot
from engines.qwen2vl.tower import Pixels, gather_pixels
from qwen_shots.fusion import KEY_FRAMES

if TYPE_CHECKING:
    from torch import Tensor

    from engines.questions import Questions
    from model_loader import PictureSpec

Sizes = tuple[tuple[int, int], ...]
"""Heights and widths of a shot's pictures."""

# Films have one size each, so that few layouts are worked out.
MOST_LAYOUTS = 256


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch on the host, ready to go.

    Attributes:
        sizes: of each shot.
        layout: which token stands where.
        numbers: the layout's arrays as tensors, by name, and those of the pixels: "token_order", "patch_starts",
            "patch_grid".
        pixels: the pictures.
    """

    sizes: Sequence[Sizes]
    layout: BatchLayout
    numbers: dict[str, Tensor]
    pixels: Pixels


def _are_alike(ids: tuple[int, ...]) -> bool:
    return len(set(ids)) == 1


class Preparer:
    """Lays batches out.

    Args:
        model: the transformers `...ForConditionalGeneration`, asked for positions alone.
        spec: how it wants its pictures.
        questions: what it is asked.
        room: tokens of a caption.
        pinned: whether a GPU will fetch what is prepared.

    Attributes:
        instruction: ids that all conversations begin with.
    """

    def __init__(self, model: Any, spec: PictureSpec, questions: Questions, room: int, *, pinned: bool) -> None:
        self._model = model
        self._spec = spec
        self._questions = questions
        self._room = room
        self._pinned = pinned
        prefixes = [questions.prefix([1] * pictures) for pictures in range(1, KEY_FRAMES + 1)]
        text = prefixes[0][: prefixes[0].index(questions.image_token)]
        self.instruction = [ids[0] for ids in takewhile(_are_alike, zip(text, *prefixes, strict=False))]
        self._shot = lru_cache(maxsize=MOST_LAYOUTS)(self._lay_out_shot)

    def text_tokens(self, pictures: int) -> int:
        """What a shot of so many pictures costs a batch beside theirs: tokens read or places in the cache, the more.

        The instruction takes places and isn't read again; stems and twigs are read and take none.
        """
        least = self._spec.factor, self._spec.factor  # a picture of one token
        shot = self._shot((least,) * pictures)
        cached = len(self.instruction) + len(shot.trunk) + self._room
        return max(cached, len(shot.trunk) + len(shot.asked)) - pictures

    def prepare(self, shots: Sequence[ShotPictures]) -> Prepared:
        """No device is touched, so it may run beside another batch."""
        sizes = [tuple((p.shape[0], p.shape[1]) for p in shot.pictures) for shot in shots]
        layout = lay_out_batch([self._shot(each) for each in sizes], shared=len(self.instruction), room=self._room)
        arrays = {field.name: getattr(layout, field.name) for field in fields(layout)}
        numbers = {
            name: torch.from_numpy(np.ascontiguousarray(array))
            for name, array in arrays.items()
            if isinstance(array, np.ndarray)
        }
        pictures = [picture for shot in shots for picture in shot.pictures]
        pixels = gather_pixels(pictures, self._spec, pinned=self._pinned)
        numbers |= {
            "token_order": pixels.token_order,
            "patch_starts": pixels.starts,
            "patch_grid": pixels.grid,
        }
        if self._pinned:
            numbers = {name: tensor.pin_memory() for name, tensor in numbers.items()}
        return Prepared(sizes, layout, numbers, pixels)

    def _lay_out_shot(self, sizes: Sizes) -> ShotLayout:
        patch, questions = self._spec.patch, self._questions
        grids = [(1, height // patch, width // patch) for height, width in sizes]
        prefix = questions.prefix([rows * columns // self._spec.merge**2 for _, rows, columns in grids])
        ids = torch.tensor([prefix])
        positions, _ = self._model.model.get_rope_index(
            input_ids=ids,
            mm_token_type_ids=(ids == questions.image_token).int(),
            image_grid_thw=torch.tensor(grids),
            attention_mask=torch.ones_like(ids),
        )
        branches = questions.branches(len(sizes))
        a_picture = len(branches) // len(sizes)
        return lay_out_shot(
            prefix,
            positions[:, 0].numpy(),
            questions.caption_cue,
            [branches[at : at + a_picture] for at in range(0, len(branches), a_picture)],
            shared=len(self.instruction),
            image_token=questions.image_token,
        )
