"""Patches of pixels to vectors, as exactly as float32 would, by matrix units that multiply bfloat16.

A normalised pixel in bfloat16 is off by up to a quarter of a grey level (`model_loader.embed_exactly`). But a byte less
a whole number is exact in it, so the normalisation goes into the weights, and these are given as a sum of parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from model_loader import PictureSpec

WHITE = 255
# Moved from the pixels to the weights, exactly: else float16 would have to round numbers as small as a weight's rest.
SCALE = 256


class PatchEmbedding:
    """The first step of a vision tower.

    Args:
        kernel: float32 (width, 3, patch, patch), over normalised colours.
        spec: how colours are normalised.
        dtype: of the tower.
    """

    def __init__(self, kernel: Tensor, spec: PictureSpec, dtype: torch.dtype) -> None:
        mean, std = (torch.tensor(each, dtype=torch.float64).view(3, 1, 1) for each in (spec.mean, spec.std))
        centre = (mean * WHITE).round()
        exact = kernel.double().cpu() / (std * WHITE)
        shift = (exact * (centre - mean * WHITE)).flatten(1).sum(dim=1)
        self._centre = centre.to(kernel.device, dtype)
        parts = _split(SCALE * exact.flatten(1), dtype)
        self._count = len(parts)
        self._weight = torch.cat(parts, dim=1).to(kernel.device)
        self._bias = shift.to(kernel.device, dtype)

    def embed(self, patches: Tensor) -> Tensor:
        """Vectors of patches.

        Args:
            patches: uint8 (patches, 3, patch, patch).

        Returns:
            (patches, width), of the tower's type.
        """
        centred = ((patches.to(self._centre.dtype) - self._centre) / SCALE).flatten(1)
        repeated = torch.cat([centred] * self._count, dim=1) if self._count > 1 else centred
        return F.linear(repeated, self._weight, self._bias)


def _split(exact: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Tensors of a type whose sum is `exact`: in half precision a rounded one, and what was rounded off."""
    first = exact.to(dtype)
    return [first] if dtype == torch.float32 else [first, (exact - first).to(dtype)]
