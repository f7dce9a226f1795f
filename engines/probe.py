"""The shot that shows whether an engine works, one small grey picture, and what its answer says of the model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from engines.base import ShotPictures
from model_loader import PictureSpec
from qwen_shots.errors import NotANumber
from qwen_shots.scoring import Reading, check_mass

log = logging.getLogger(__name__)

SIDE_TOKENS = 4
PROBE_TOKENS = SIDE_TOKENS**2  # of its picture


def probe_shot(spec: PictureSpec) -> ShotPictures:
    """A shot that costs little, in the size that the model wants."""
    side = SIDE_TOKENS * spec.factor
    return ShotPictures((np.full((side, side, 3), 128, np.uint8),))


def warn_of_few_numbers(model: str, readings: Mapping[str, Sequence[Reading]], least: float) -> None:
    """Warn where the answer to the probe leaves little probability for numbers.

    Args:
        model: its name or its endpoint's address.
        readings: attribute to one reading a picture.
        least: `processing.least_mass`, 0..1.
    """
    try:
        check_mass(readings, least)
    except NotANumber as error:
        log.warning("most shots may fail with %s: %s", model, error.detail)
