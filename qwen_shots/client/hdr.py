"""High dynamic range and wide gamut, brought to what a standard screen shows: BT.709 for a dark room (BT.1886)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwen_shots.light import (
    BT709,
    BT2020,
    HLG,
    PQ,
    PQ_PEAK_NITS,
    PRIMARIES,
    WHITE_NITS,
    between,
    hlg_gain,
    light_of_pq,
    scene_light_of_hlg,
    to_xyz,
)

# BT.2020, DCI-P3 and Display P3. The primaries of SD and HD differ by less than can be seen in a shot.
WIDE = frozenset({BT2020, 11, 12})

BITS = 12
LEVELS = 1 << BITS
WHITE_CODE = 255 << BITS - 8  # what FFmpeg's scaler makes of YUV's white

SDR_GAMMA = 2.4  # ITU-R BT.1886

# Up to this part of the SDR signal nothing changes. Diffuse white itself becomes .025 darker, so that a film measures
# alike in HDR and SDR; what is left is enough to tell a bright sky from a lamp.
KNEE = 0.95
PEAK = PQ_PEAK_NITS / WHITE_NITS
# Codes are looked up by the root of light, which is nearly even in what the eye sees.
STEPS = LEVELS


def is_wide(primaries: int, transfer: int) -> bool:
    """Whether a picture needs `to_sdr`."""
    return transfer in (PQ, HLG) or primaries in WIDE


def to_sdr(rgb: NDArray[np.uint16], primaries: int, transfer: int) -> NDArray[np.uint8]:
    """Show a picture on an SDR screen.

    Each channel is mapped by itself (ITU-R BT.2390-11, section 5.1.4: highlights lose colour, as on film), and colours
    outside of BT.709 are clipped (BT.2407-0, section 2). Below KNEE of the signal, SDR that was put into HDR by
    BT.2408's section 5.1 comes back as it was.

    Args:
        rgb: (height, width, 3), 0 to WHITE_CODE: the signal, not linear light.
        primaries: one of `qwen_shots.light.PRIMARIES`.
        transfer: PQ, HLG, or any other, which is SDR's.

    Returns:
        (height, width, 3), full range, 8 bits.
    """
    import cv2

    light: NDArray[Any] = _light_of_codes(transfer)[rgb]
    if transfer == HLG:
        light = light * hlg_gain(cv2.transform(light, _to_luminance(primaries)))[..., None]
    light = cv2.transform(light, _to_bt709(primaries))
    np.clip(light, 0, PEAK, out=light)
    np.sqrt(light, out=light)
    light *= STEPS
    codes: NDArray[np.uint8] = _codes_of_light(transfer)[light.astype(np.uint16)]
    return codes


@lru_cache
def _light_of_codes(transfer: int) -> NDArray[np.float32]:
    """Linear light of each code, 1 for diffuse white; of HLG, the scene's, 1 for its peak."""
    signal = np.minimum(np.arange(LEVELS) / WHITE_CODE, 1)
    curves = {PQ: light_of_pq, HLG: scene_light_of_hlg}
    light = curves[transfer](signal) if transfer in curves else signal**SDR_GAMMA
    return light.astype(np.float32)


@lru_cache
def _codes_of_light(transfer: int) -> NDArray[np.uint8]:
    """The SDR code for each root of light, in STEPS for diffuse white."""
    steps = np.arange(int(np.sqrt(PEAK) * STEPS) + 1)
    signal = (steps / STEPS) ** (2 / SDR_GAMMA)
    if transfer in (PQ, HLG):
        signal = _rolled_off(signal)
    codes: NDArray[np.uint8] = np.rint(np.minimum(signal, 1) * 255).astype(np.uint8)
    return codes


def _rolled_off(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bend what is above KNEE so that the peak becomes 1: the Moebius curve of mpv and FFmpeg's `tonemap` filter."""
    above = np.maximum(signal - KNEE, 0)
    bend = 1 / (1 - KNEE) - 1 / (PEAK ** (1 / SDR_GAMMA) - KNEE)
    return np.asarray(np.minimum(signal, KNEE) + above / (1 + bend * above), np.float64)


@lru_cache
def _to_bt709(primaries: int) -> NDArray[np.float32]:
    return between(PRIMARIES[primaries], PRIMARIES[BT709]).astype(np.float32)


@lru_cache
def _to_luminance(primaries: int) -> NDArray[np.float32]:
    return to_xyz(PRIMARIES[primaries])[1:2].astype(np.float32)
