"""Pictures to the rows of numbers that a Qwen vision tower takes.

The same arithmetic as transformers' Qwen2VLImageProcessor (a test compares them), without its resize: pictures arrive
in their final size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engines.base import Picture, ShotPictures
from model_loader import PictureSpec
from qwen_shots.media import fit_picture


def grid_of(picture: Picture, spec: PictureSpec) -> tuple[int, int, int]:
    """Patches in time, height and width."""
    height, width = picture.shape[:2]
    return 1, height // spec.patch, width // spec.patch


def token_count(picture: Picture, spec: PictureSpec) -> int:
    """Tokens that the picture costs in the prompt."""
    _, rows, columns = grid_of(picture, spec)
    return rows * columns // spec.merge**2


def fit_shot(shot: ShotPictures, spec: PictureSpec, max_frame_tokens: int) -> ShotPictures:
    """Scale a shot's pictures down to what the settings ask for, and to no more than the checkpoint was made for."""
    cap = spec.max_tokens(max_frame_tokens)
    fitted = tuple(fit_picture(picture, factor=spec.factor, max_tokens=cap) for picture in shot.pictures)
    return replace(shot, pictures=fitted)


def to_patches(pictures: Sequence[Picture], spec: PictureSpec) -> NDArray[np.float32]:
    """Flatten pictures into patches, one picture after another.

    Args:
        pictures: uint8 RGB, sides multiples of `spec.factor`.
        spec: the family's patches and colours.

    Returns:
        float32 of shape (patches of all pictures, 3 * temporal * patch * patch).
    """
    return np.concatenate([_picture_patches(picture, spec) for picture in pictures])


def _picture_patches(picture: Picture, spec: PictureSpec) -> NDArray[np.float32]:
    _, rows, columns = grid_of(picture, spec)
    mean, std = (np.asarray(values, np.float32) for values in (spec.mean, spec.std))
    scaled = (picture.astype(np.float32) / np.float32(255) - mean) / std
    # Neighbouring patches of one token stand next to each other: (token row, token column, row in it, column in it).
    tiles = scaled.reshape(
        rows // spec.merge, spec.merge, spec.patch, columns // spec.merge, spec.merge, spec.patch, 3
    ).transpose(0, 3, 1, 4, 6, 2, 5)
    flat = tiles.reshape(rows * columns, 3, 1, spec.patch * spec.patch)
    # A still picture is a film of `temporal` equal frames.
    return np.repeat(flat, spec.temporal, axis=2).reshape(rows * columns, -1)
