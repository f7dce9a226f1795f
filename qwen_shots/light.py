"""Colours as physics has them: primaries, light of coded signals. Code points are those of ITU-T H.273."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Chromaticities: TypeAlias = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]
"""x and y of red, green, blue and white (CIE 1931)."""

PQ, HLG = 16, 18  # transfer characteristics
BT709, BT2020 = 1, 9  # colour primaries

# Diffuse white on an HDR screen: ITU-R BT.2408-7, section 2.2.
WHITE_NITS = 203.0
PQ_PEAK_NITS = 10_000.0
# HLG leaves the peak to the screen; this is the one for which BT.2100 has a system gamma of 1.2, and BT.2408 its white.
HLG_PEAK_NITS = 1_000.0
HLG_GAMMA = 1.2

_D65, _C, _DCI = (0.3127, 0.3290), (0.310, 0.316), (0.314, 0.351)
_BT601 = ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65)

# H.273, table 2.
PRIMARIES: dict[int, Chromaticities] = {
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    4: ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
    5: ((0.64, 0.33), (0.29, 0.60), (0.15, 0.06), _D65),
    6: _BT601,
    7: _BT601,
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _DCI),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), _D65),
}

# Bradford's cones, in which one white becomes another (ICC.1:2022, annex E).
_CONES = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def between(source: Chromaticities, target: Chromaticities) -> NDArray[np.float64]:
    """The matrix that brings linear RGB of some primaries to others, white to white."""
    whites = (_CONES @ to_xyz(one).sum(1) for one in (target, source))
    scale = np.divide(*whites)
    adapted = np.linalg.solve(_CONES, scale[:, None] * (_CONES @ to_xyz(source)))
    return np.asarray(np.linalg.solve(to_xyz(target), adapted), np.float64)


def to_xyz(primaries: Chromaticities) -> NDArray[np.float64]:
    """The matrix from linear RGB to CIE XYZ, Y of white being 1: SMPTE RP 177:1993."""
    xyz = np.array([(x, y, 1 - x - y) for x, y in primaries]).T
    white = xyz[:, 3] / primaries[3][1]
    return np.asarray(xyz[:, :3] * np.linalg.solve(xyz[:, :3], white), np.float64)


def light_of_pq(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Light of a signal of 0..1, 1 being diffuse white: SMPTE ST 2084:2014, equation 4.1."""
    root = signal ** (32 / 2523)
    share = (np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)) ** (8192 / 1305)
    return np.asarray(share * (PQ_PEAK_NITS / WHITE_NITS), np.float64)


def scene_light_of_hlg(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """The scene's light of a signal of 0..1, 1 being its peak: ITU-R BT.2100-2, table 5, the inverse OETF."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def hlg_gain(luminance: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a screen makes of the scene's light, 1 being diffuse white: BT.2100-2, table 5, the OOTF."""
    return np.asarray(luminance ** np.float32(HLG_GAMMA - 1) * np.float32(HLG_PEAK_NITS / WHITE_NITS))
