"""The shot that shows whether an engine works: one small grey picture."""

from __future__ import annotations

import numpy as np

from engines.base import ShotPictures
from model_loader import PictureSpec

SIDE_TOKENS = 4
PROBE_TOKENS = SIDE_TOKENS**2  # of its picture


def probe_shot(spec: PictureSpec) -> ShotPictures:
    """A shot that costs little, in the size that the model wants."""
    side = SIDE_TOKENS * spec.factor
    return ShotPictures((np.full((side, side, 3), 128, np.uint8),))
