"""PNGs that say by cICP, gAMA or cHRM what their numbers mean: by formula, and beside what Chromium shows."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from qwen_shots.errors import InvalidPicture
from qwen_shots.media import Picture, decode_picture
from tests.qwen_shots.pictures import base64_text, icc_profile, png

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Chunk = tuple[bytes, bytes]

SRGB_WHITE_AND_PRIMARIES = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
BT2020_PRIMARIES = (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)
WHITE_OF_D50 = (0.3457, 0.3585, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)


def gama(gamma: float) -> Chunk:
    return b"gAMA", struct.pack(">I", round(gamma * 100_000))


def chrm(*values: float) -> Chunk:
    return b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in values))


def cicp(primaries: int, transfer: int, matrix: int = 0, full: int = 1) -> Chunk:
    return b"cICP", bytes([primaries, transfer, matrix, full])


def clli(nits: int) -> Chunk:
    return b"cLLI", struct.pack(">II", nits * 10_000, 10_000)


SRGB: Chunk = (b"sRGB", b"\0")
ICC: Chunk = (b"iCCP", b"a\0\0" + zlib.compress(icc_profile()))
BROKEN_ICC: Chunk = (b"iCCP", b"a\0\0" + zlib.compress(b"no profile" * 20))


def ramps() -> Picture:
    """Every code of grey, of red, of green, and of a blue among others."""
    codes = np.zeros((32, 256, 3), np.uint8)
    codes[:8] = np.arange(256)[:, None]
    codes[8:16, :, 0] = codes[16:24, :, 1] = codes[24:, :, 2] = np.arange(256)
    codes[24:, :, :2] = 255, 128
    return codes


def decoded(*chunks: Chunk) -> NDArray[np.int64]:
    return decode_picture(base64_text(png(8, 2, ramps(), *chunks)), "images[0]").astype(np.int64)


def in_srgb(light: NDArray[np.float64]) -> NDArray[np.float64]:
    """IEC 61966-2-1."""
    light = light.clip(0, 1)
    return 255 * np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


# From linear RGB to sRGB's, as the standards of these primaries give them (BT.2087 inverted; Display P3 by Apple).
FROM_BT2020 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
FROM_P3 = np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]])
SIGNAL = ramps() / 255


@pytest.mark.parametrize(
    ("chunks", "light"),
    [
        ([gama(1.0)], SIGNAL),
        ([gama(0.512)], SIGNAL ** (1 / 0.512)),
        ([gama(0.2)], SIGNAL**5),
        ([gama(1.0), chrm(*BT2020_PRIMARIES)], SIGNAL @ FROM_BT2020.T),
        ([chrm(*BT2020_PRIMARIES), gama(0.45455)], SIGNAL**2.2 @ FROM_BT2020.T),
        ([cicp(1, 8)], SIGNAL),
        ([cicp(12, 8)], SIGNAL @ FROM_P3.T),
        ([cicp(9, 1)], SIGNAL**2.4 @ FROM_BT2020.T),
        ([SRGB, gama(1.0), cicp(1, 8)], SIGNAL),
        ([ICC, cicp(1, 8)], SIGNAL),
        ([BROKEN_ICC, gama(1.0)], SIGNAL),
        ([cicp(2, 2), gama(1.0)], SIGNAL),
    ],
)
def test_colours_by_formula(chunks: list[Chunk], light: NDArray[np.float64]) -> None:
    assert np.abs(decoded(*chunks) - in_srgb(light)).max() <= 1.5


@pytest.mark.parametrize(
    "chunks",
    [
        [gama(0.45455)],
        [gama(0.46)],
        [SRGB, gama(1.0)],
        [gama(1.0), SRGB],
        [BROKEN_ICC, SRGB, gama(1.0)],
        [chrm(*BT2020_PRIMARIES)],
        [gama(0)],
        [gama(1.0), chrm(0, 0, 0, 0, 0, 0, 0, 0)],
        [gama(1.0), chrm(0.31, 0.33, 0.64, 0.33, 0.64, 0.33, 0.15, 0.06)],
        [cicp(2, 2)],
        [cicp(1, 13)],
        [(b"cICP", b"\1\x08\0")],
    ],
)
def test_what_says_srgb_or_nothing_leaves_the_numbers(chunks: list[Chunk]) -> None:
    assert (decoded(*chunks) == ramps()).all()


def test_a_profile_goes_before_gamma() -> None:
    assert (decoded(ICC, gama(1.0)) == decoded(ICC)).all()


def test_hdr_is_dimmed_to_make_room_for_its_highlights() -> None:
    """Diffuse white, 203 nits, at half of SDR's light, and the peak at all of it: SMPTE ST 2094-50."""
    shown = decoded(cicp(9, 16))[4, :, 0]
    # PQ's signal for 203 nits is .581; for 1,000, .752 (ITU-R BT.2408).
    assert shown[round(0.581 * 255)] == pytest.approx(in_srgb(np.array(0.5)), abs=2)
    assert (shown[round(0.752 * 255) :] == 255).all()
    hlg = decoded(cicp(9, 18))[4, :, 0]
    assert hlg[round(0.75 * 255)] == pytest.approx(in_srgb(np.array(0.5)), abs=2)
    assert hlg[254] < hlg[255] == 255


def test_hdr_no_brighter_than_white_is_not_dimmed() -> None:
    assert decoded(cicp(9, 16), clli(203))[4, round(0.581 * 255), 0] == pytest.approx(255, abs=2)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colour_type", [0, 4, 6])
def test_other_kinds_of_png(depth: int, colour_type: int) -> None:
    """Grey, grey with transparency, RGB with transparency: linear light, half of it paper."""
    most = 2**depth - 1
    grey = np.broadcast_to((np.arange(256) * most // 255)[:, None], (32, 256, 1))
    alpha = np.full_like(grey, round(most * 0.5))
    parts = {0: [grey], 4: [grey, alpha], 6: [grey, grey, grey, alpha]}[colour_type]
    data = png(depth, colour_type, np.concatenate(parts, axis=-1), gama(1.0))
    shown = decode_picture(base64_text(data), "images[0]")[4].astype(float)
    expected = in_srgb(np.arange(256) / 255)
    if colour_type:
        expected = 0.5 * expected + 0.5 * 255
    assert np.abs(shown - expected[:, None]).max() <= 2


def test_a_palette() -> None:
    palette = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    data = png(8, 3, ramps()[..., 0], gama(1.0), (b"PLTE", palette.tobytes()))
    shown = decode_picture(base64_text(data), "images[0]")[4]
    assert np.abs(shown - in_srgb(np.arange(256) / 255)[:, None]).max() <= 1


def test_a_damaged_comment_is_passed_over() -> None:
    """A wrong checksum of what is not needed for the picture; of what is, the file is refused."""
    data = png(8, 2, ramps(), (b"tEXt", b"Comment\0hello"), gama(1.0))
    text = data.index(b"hello")
    damaged = data[:text] + b"HELLO" + data[text + 5 :]
    assert (decode_picture(base64_text(damaged), "images[0]") == decoded(gama(1.0))).all()
    width = data[:19] + b"\x80" + data[20:]
    with pytest.raises(InvalidPicture, match="damaged"):
        decode_picture(base64_text(width), "images[0]")


IN_A_BROWSER: dict[str, list[Chunk]] = {
    "gamma": [gama(1.0)],
    "gamma 0.512": [gama(0.512)],
    "gamma and white": [gama(1.0), chrm(*WHITE_OF_D50)],
    "gamma and sRGB's primaries": [gama(0.45455), chrm(*SRGB_WHITE_AND_PRIMARIES)],
    "gamma and primaries": [gama(0.45455), chrm(*BT2020_PRIMARIES)],
    "profile over gamma": [ICC, gama(1.0)],
    "code points over profile": [ICC, cicp(1, 8)],
    "PQ": [cicp(9, 16)],
    "PQ to 400 nits": [cicp(9, 16), clli(400)],
    "PQ to 4,000 nits": [cicp(9, 16), clli(4000)],
    "PQ in BT.709": [cicp(1, 16)],
    "HLG": [cicp(9, 18)],
    "HLG in P3": [cicp(12, 18)],
    **{f"curve {curve}": [cicp(1, curve)] for curve in (1, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 17)},
    **{f"primaries {primaries}": [cicp(primaries, 13)] for primaries in (4, 5, 6, 7, 8, 9, 11, 12, 22)},
}


@pytest.fixture(scope="module")
def shown(browser: Browser) -> dict[str, NDArray[np.int64]]:
    """What Chromium shows of each, on a screen of sRGB."""
    page = browser.new_page()
    return {name: _shown(page, png(8, 2, ramps(), *chunks)) for name, chunks in IN_A_BROWSER.items()}


def _shown(page: Page, data: bytes) -> NDArray[np.int64]:
    source = f"data:image/png;base64,{base64_text(data)}"
    page.set_content(f'<body style="margin: 0"><img style="display: block" src="{source}">')
    page.evaluate("document.images[0].decode()")
    screen = page.screenshot(clip={"x": 0, "y": 0, "width": 256, "height": 32})
    return np.asarray(Image.open(BytesIO(screen)).convert("RGB")).astype(np.int64)


@pytest.mark.parametrize("name", IN_A_BROWSER)
def test_colours_are_those_of_a_browser(shown: dict[str, NDArray[np.int64]], name: str) -> None:
    assert np.abs(decoded(*IN_A_BROWSER[name]) - shown[name]).max() <= 3
