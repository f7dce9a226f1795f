"""Patches to vectors: as exact as float32 in half precision too."""

from __future__ import annotations

import pytest
import torch

from engines.qwen2vl.embedding import WHITE, PatchEmbedding
from model_loader import PictureSpec

SPEC = PictureSpec(
    patch=14,
    merge=2,
    temporal=2,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)


def of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normalised(patches: torch.Tensor) -> torch.Tensor:
    """In float64, as the model's own processor defines it."""
    mean, std = (torch.tensor(each, dtype=torch.float64).view(3, 1, 1) for each in (SPEC.mean, SPEC.std))
    return ((patches.double() / WHITE - mean) / std).flatten(1)


@pytest.mark.parametrize(
    ("dtype", "rounding"), [(torch.float32, 2**-24), (torch.bfloat16, 2**-8), (torch.float16, 2**-11)]
)
def test_only_the_answer_is_rounded(dtype: torch.dtype, rounding: float) -> None:
    kernel = (0.02 * torch.randn(48, 3, 14, 14, generator=of(0))).bfloat16().float()
    noise = torch.randint(0, 256, (40, 3, 14, 14), dtype=torch.uint8, generator=of(1))
    fog = torch.randint(100, 104, (40, 3, 1, 1), dtype=torch.uint8, generator=of(2)).expand(40, 3, 14, 14)
    patches = torch.cat([noise, fog])
    exact = normalised(patches) @ kernel.double().flatten(1).T
    answer = PatchEmbedding(kernel, SPEC, dtype).embed(patches)
    assert answer.dtype == dtype
    # Beside its rounding there may be what float32's sums are off by, and what the weights' second part leaves over.
    assert ((answer.double() - exact).abs() <= rounding * exact.abs() + 3e-5).all()


def test_a_grey_level_more_is_seen_in_half_precision() -> None:
    """What a normalised pixel in bfloat16 would lose: its step there is up to 0.5 grey levels."""
    kernel = torch.full((1, 3, 14, 14), 0.02)
    embedding = PatchEmbedding(kernel, SPEC, torch.bfloat16)
    levels = torch.arange(0, 256, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 14, 14)
    vectors = embedding.embed(levels)
    exact = normalised(levels) @ kernel.double().flatten(1).T
    assert torch.equal(vectors, exact.to(torch.bfloat16))
