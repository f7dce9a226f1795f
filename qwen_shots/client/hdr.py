"""High dynamic range and wide gamut, brought to what a standard screen shows: BT.709 for a dark room (BT.1886).

Code points are those of ITU-T H.273, as FFmpeg has them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

BT709, BT2020, DCI_P3, DISPLAY_P3 = 1, 9, 11, 12  # colour primaries
PQ, HLG = 16, 18  # transfer characteristics

BITS = 12
LEVELS = 1 << BITS
WHITE_CODE = 255 << BITS - 8  # what FFmpeg's scaler makes of YUV's white

# Diffuse white on an HDR screen (ITU-R BT.2408-7, section 2.2); it is shown as SDR's white.
WHITE_NITS = 203.0
PQ_PEAK_NITS = 10_000.0
# HLG has no light of its own; this is the screen for which BT.2100 gives a system gamma of 1.2, and BT.2408 its white.
HLG_PEAK_NITS = 1_000.0
HLG_GAMMA = 1.2
SDR_GAMMA = 2.4  # ITU-R BT.1886

# Up to this part of the SDR signal nothing changes. Diffuse white itself becomes .025 darker, so that a film measures
# alike in HDR and SDR; what is left is enough to tell a bright sky from a lamp.
KNEE = 0.95
PEAK = PQ_PEAK_NITS / WHITE_NITS
# Codes are looked up by the root of light, which is nearly even in what the eye sees.
STEPS = LEVELS

# Chromaticities (x, y) of red, green, blue and white: H.273, table 2.
D65 = (0.3127, 0.3290)
PRIMARIES = {
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), D65),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), D65),
    # DCI's white is the projector's; a film that was made for it is shown with a screen's white.
    DCI_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),
    DISPLAY_P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), D65),
}


def is_wide(primaries: int, transfer: int) -> bool:
    """Whether a picture needs `to_sdr`."""
    return transfer in (PQ, HLG) or primaries in PRIMARIES.keys() - {BT709}


def to_sdr(rgb: NDArray[np.uint16], primaries: int, transfer: int) -> NDArray[np.uint8]:
    """Show a picture on an SDR screen.

    Each channel is mapped by itself (ITU-R BT.2390-11, section 5.1.4: highlights lose colour, as on film), and colours
    outside of BT.709 are clipped (BT.2407-0, section 2). Below KNEE of the signal, SDR that was put into HDR by
    BT.2408's section 5.1 comes back as it was.

    Args:
        rgb: (height, width, 3), 0 to WHITE_CODE: the signal, not linear light.
        primaries: one of PRIMARIES.
        transfer: PQ, HLG, or any other, which is SDR's.

    Returns:
        (height, width, 3), full range, 8 bits.
    """
    light: NDArray[Any] = _light_of_codes(transfer)[rgb]
    if transfer == HLG:
        light = light * _hlg_gain(light, primaries)
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
    if transfer == PQ:
        # SMPTE ST 2084:2014, equation 4.1.
        root = signal ** (32 / 2523)
        light = (np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)) ** (8192 / 1305) * PEAK
    elif transfer == HLG:
        # ITU-R BT.2100-2, table 5: the inverse OETF.
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    else:
        light = signal**SDR_GAMMA
    return light.astype(np.float32)


def _hlg_gain(scene: NDArray[np.float32], primaries: int) -> NDArray[np.float32]:
    """What the screen makes of the scene's light, 1 for diffuse white: BT.2100-2, table 5, the OOTF."""
    luminance = cv2.transform(scene, _to_xyz(primaries)[1:2].astype(np.float32))
    gain: NDArray[np.float32] = luminance ** np.float32(HLG_GAMMA - 1) * np.float32(HLG_PEAK_NITS / WHITE_NITS)
    return gain[..., None]


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
    return np.linalg.solve(_to_xyz(BT709), _to_xyz(primaries)).astype(np.float32)


@lru_cache
def _to_xyz(primaries: int) -> NDArray[np.float64]:
    """The matrix from linear RGB to CIE XYZ: SMPTE RP 177:1993."""
    xyz = np.array([(x / y, 1, (1 - x - y) / y) for x, y in PRIMARIES[primaries]]).T
    scale = np.linalg.solve(xyz[:, :3], xyz[:, 3])
    return np.asarray(xyz[:, :3] * scale, np.float64)
