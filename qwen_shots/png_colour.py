"""What a PNG says of its colours beside an ICC profile (cICP, sRGB, gAMA, cHRM), shown as browsers show it."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from qwen_shots.light import (
    BT709,
    BT2020,
    HLG,
    HLG_PEAK_NITS,
    PQ,
    PRIMARIES,
    WHITE_NITS,
    Chromaticities,
    between,
    hlg_gain,
    light_of_pq,
    scene_light_of_hlg,
    to_xyz,
)

SIGNATURE_BYTES = 8
SRGB_CURVE, SMPTE_240M, SMPTE_428 = 13, 7, 17  # transfer characteristics of H.273
# The exponents of the others. A screen's for what is made for screens: ITU-R BT.1886.
EXPONENTS = {1: 2.4, 4: 2.2, 5: 2.8, 6: 2.4, 8: 1.0, 11: 2.4, 14: 2.4, 15: 2.4}
CURVES = EXPONENTS.keys() | {SRGB_CURVE, SMPTE_240M, SMPTE_428, PQ, HLG}
# gAMA as close as this to 1/2.2 means sRGB: libpng's PNG_GAMMA_THRESHOLD.
SRGB_TOLERANCE = 0.05
# Primaries that lie closer to one line than this span no colours; sRGB's have .22.
LEAST_TRIANGLE = 1e-4

STRIP_PIXELS = 2**16
# Codes are looked up by the root of light, which is nearly even in what the eye sees.
STEPS = 4096


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a picture's numbers stand for colours.

    Attributes:
        primaries: of its red, green and blue, and its white.
        curve: a transfer characteristic of ITU-T H.273, one of CURVES; 0 for `exponent`.
        exponent: of the signal, where that is the curve.
        peak: of an HDR picture, the brightest light in it; 1 is diffuse white.
    """

    primaries: Chromaticities = PRIMARIES[BT709]
    curve: int = 0
    exponent: float = 1.0
    peak: float = HLG_PEAK_NITS / WHITE_NITS

    def to_srgb(self, picture: Image.Image) -> Image.Image:
        """Show an L or RGB picture: RGB in sRGB, 8 bits."""
        if picture.mode == "L" or (self.primaries == PRIMARIES[BT709] and self.curve not in (PQ, HLG)):
            # No channel depends on another, or all are the same.
            grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
            return picture.point(self._shown(grey)[:, 0].tolist() * len(picture.getbands())).convert("RGB")
        shown = Image.new("RGB", picture.size)
        rows = max(1, STRIP_PIXELS // picture.width)
        for top in range(0, picture.height, rows):
            strip = np.asarray(picture.crop((0, top, picture.width, min(top + rows, picture.height))))
            shown.paste(Image.fromarray(self._shown(strip)), (0, top))
        return shown

    def _shown(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Codes (..., 3) as sRGB's codes."""
        light = _light_of_codes(self.curve, self.exponent)[codes]
        if self.curve in (PQ, HLG):
            light = self._tone_mapped(light) @ between(PRIMARIES[BT2020], PRIMARIES[BT709]).astype(np.float32).T
        elif self.primaries != PRIMARIES[BT709]:
            light = light @ between(self.primaries, PRIMARIES[BT709]).astype(np.float32).T
        steps = np.sqrt(light.clip(0, 1)) * STEPS + 0.5
        shown: NDArray[np.uint8] = _codes_of_light()[steps.astype(np.uint16)]
        return shown

    def _tone_mapped(self, light: NDArray[np.float32]) -> NDArray[np.float32]:
        """HDR's light in BT.2020's primaries, 1 being what an SDR screen can show.

        SMPTE ST 2094-50's operator for pictures that bring no curve with them, as in Skia's SkHdrAgtm.cpp: the greatest
        of the three channels is mapped, and the others keep their share of it.
        """
        if self.curve == HLG:
            light = light * hlg_gain(light @ to_xyz(self.primaries)[1].astype(np.float32))[..., None]
        light = (light @ between(self.primaries, PRIMARIES[BT2020]).astype(np.float32).T).clip(0)
        if self.peak <= 1:
            return light
        most = light.max(-1, keepdims=True)
        gain = _rolled_off(most, self.peak) / np.maximum(most, np.float32(1e-9))
        return np.asarray(light * gain, np.float32)


def _rolled_off(light: NDArray[np.float32], peak: float) -> NDArray[np.float32]:
    """Scale diffuse white down to make room above it, and bend what is brighter up to the peak in a Bezier curve."""
    white = 1 - 0.5 * min(math.log(peak) / math.log(HLG_PEAK_NITS / WHITE_NITS), 1)
    middle, middle_shown = 0.35 + 0.65 / white, 0.35 * white + 0.65
    a, b = 1 - 2 * middle + peak, middle - 1
    above = (light - 1).clip(0, peak - 1)
    # Where along the curve its x has this value. `b + root` is never 0, as it would be the other way about.
    along = above / (b + np.sqrt(b * b + a * above))
    bent = white + 2 * (middle_shown - white) * along + (1 - 2 * middle_shown + white) * along**2
    return np.where(light < 1, light * white, bent)


@lru_cache
def _light_of_codes(curve: int, exponent: float) -> NDArray[np.float32]:
    signal = np.arange(256) / 255
    if curve == PQ:
        light = light_of_pq(signal)
    elif curve == HLG:
        light = scene_light_of_hlg(signal)
    elif curve == SRGB_CURVE:
        light = np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)
    elif curve == SMPTE_240M:
        light = np.where(signal < 0.0913, signal / 4, ((signal + 0.1115) / 1.1115) ** (1 / 0.45))
    elif curve == SMPTE_428:
        light = 52.37 / 48 * signal**2.6
    else:
        light = signal ** EXPONENTS.get(curve, exponent)
    return light.astype(np.float32)


@lru_cache
def _codes_of_light() -> NDArray[np.uint8]:
    """The code in sRGB for each root of light (IEC 61966-2-1)."""
    light = (np.arange(STEPS + 1) / STEPS) ** 2
    signal = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    codes: NDArray[np.uint8] = np.rint(signal * 255).astype(np.uint8)
    return codes


def open_png(file: BytesIO) -> PngImagePlugin.PngImageFile:
    """Open a PNG, and pass over a damaged part beside the pixels, as browsers do.

    `info["encoding"]` is what it says of its colours, None being sRGB. Where that overrules a profile, it has none.
    """
    data = file.getvalue()
    parts = list(_parts_before_pixels(data))
    broken = [(start, end) for name, start, end in parts if _is_extra(name) and not _is_whole(data, start, end)]
    for start, end in reversed(broken):
        data = data[:start] + data[end:]
    image = PngImagePlugin.PngImageFile(BytesIO(data) if broken else file)
    extras = {name: data[start + 8 : end - 4] for name, start, end in reversed(list(_parts_before_pixels(data)))}
    by_code_points = _of_code_points(extras)
    if by_code_points:
        image.info.pop("icc_profile", None)
    image.info["encoding"] = by_code_points or _of_gamma(extras)
    return image


def _parts_before_pixels(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk up to the first IDAT."""
    at = SIGNATURE_BYTES
    while at + 12 <= len(data) and data[at + 4 : at + 8] != b"IDAT":
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], at, end
        at = end


def _is_extra(name: bytes) -> bool:
    """Whether a picture can be shown without chunks of this name: a small first letter."""
    return name[:1].islower()


def _is_whole(data: bytes, start: int, end: int) -> bool:
    return end > len(data) or zlib.crc32(data[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")


def _of_code_points(extras: dict[bytes, bytes]) -> Encoding | None:
    """What cICP says; None where it is not there, or says what no browser knows."""
    code_points = extras.get(b"cICP", b"")
    if len(code_points) != 4:
        return None
    # The range is not looked at, as in browsers.
    primaries, curve, matrix, _ = code_points
    if primaries not in PRIMARIES or curve not in CURVES or matrix != 0:
        return None
    return Encoding(PRIMARIES[primaries], curve, peak=_peak_nits(extras) / WHITE_NITS)


def _peak_nits(extras: dict[bytes, bytes]) -> float:
    """The brightest light by cLLI, or else the brightest of the screen on which it was made (mDCV)."""
    for name, at in ((b"cLLI", 0), (b"mDCV", 16)):
        nits = int.from_bytes(extras.get(name, b"")[at : at + 4], "big") / 10_000
        if nits:
            return nits
    return HLG_PEAK_NITS


def _of_gamma(extras: dict[bytes, bytes]) -> Encoding | None:
    """What gAMA and cHRM say; None where that is sRGB, or sRGB says so. cHRM without gAMA says nothing."""
    gamma = int.from_bytes(extras.get(b"gAMA", b""), "big") / 100_000
    if not gamma or len(extras[b"gAMA"]) != 4 or b"sRGB" in extras:
        return None
    if len(extras.get(b"cHRM", b"")) != 32:
        return None if abs(gamma * 2.2 - 1) < SRGB_TOLERANCE else Encoding(exponent=1 / gamma)
    white, red, green, blue = ((x / 100_000, y / 100_000) for x, y in struct.iter_unpack(">II", extras[b"cHRM"]))
    if not white[1] or abs(_triangle(red, green, blue)) < LEAST_TRIANGLE:
        return None
    return Encoding((red, green, blue, white), exponent=1 / gamma)


def _triangle(red: tuple[float, float], green: tuple[float, float], blue: tuple[float, float]) -> float:
    """Twice the area between three primaries."""
    return (green[0] - red[0]) * (blue[1] - red[1]) - (blue[0] - red[0]) * (green[1] - red[1])
