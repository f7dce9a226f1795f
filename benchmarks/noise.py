"""Noise: shots of which no two tokens are alike, so that nothing has to be read, and numbers for kernels."""

from __future__ import annotations

import numpy as np
import torch

from engines.base import ShotPictures
from qwen_shots.fusion import KEY_FRAMES

TOKEN_SIDE = 28


def random_shots(count: int, rows: int, columns: int) -> list[ShotPictures]:
    """Shots of three pictures.

    Args:
        count: shots.
        rows: tokens from top to bottom.
        columns: tokens from left to right.
    """
    random = np.random.default_rng(1)
    shape = (KEY_FRAMES, rows * TOKEN_SIDE, columns * TOKEN_SIDE, 3)
    return [ShotPictures(tuple(random.integers(0, 256, shape, dtype=np.uint8))) for _ in range(count)]


def numbers_on_gpu(*shape: int) -> torch.Tensor:
    """Normally distributed, in bfloat16."""
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)
