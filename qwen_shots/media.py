"""From what a client sent to frames as a person would see them.

A frame is a base64 JPEG, PNG or WebP. Its format is decided by its content, its limits are checked before any pixel is
decoded, and what comes out is 8-bit sRGB, upright, with transparency laid on white as a browser's page shows it. A
frame that will be looked at much smaller is reduced: a JPEG while it is decoded, others before their colours are
converted.
"""

from __future__ import annotations

import binascii
import math
import struct
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from io import BytesIO
from typing import TypeAlias

import numpy as np
import pybase64
from numpy.typing import NDArray
from PIL import Image, ImageFile

from qwen_shots.colour import as_seen, is_on_its_side, scale_key
from qwen_shots.decode_budget import DecodeBudget
from qwen_shots.errors import InvalidPicture
from qwen_shots.formats import MAX_PIXELS, format_of
from qwen_shots.reduce import reduced, scale_for

Picture: TypeAlias = NDArray[np.uint8]
"""A frame: (height, width, 3), 8-bit sRGB."""

Size: TypeAlias = tuple[int, int]
"""(height, width) in pixels."""

MIN_SIDE = 16
MAX_SIDE = 16_384  # just above WebP's own 16,383
MAX_RATIO = 20

BYTES_A_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2}  # in Pillow; 4 of the others
COPIES = 2  # of a picture, on its way to sRGB on white

# What Pillow's decoders raise on a broken file, found by fuzzing them (tests/qwen_shots/test_media.py).
BROKEN_FILE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error, zlib.error)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as a person would see it.

    Attributes:
        image: RGB, 8-bit sRGB, upright; smaller than what was sent where that was enough.
        size: of what was sent, upright.
    """

    image: Image.Image
    size: Size


@dataclass(frozen=True, slots=True)
class PictureFit:
    """How large a model sees pictures.

    Attributes:
        factor: pixels a token measures on each side (Qwen2-VL: 28).
        max_tokens: the most tokens that a picture may cost.
    """

    factor: int
    max_tokens: int

    def size(self, size: Size) -> Size:
        """The size at which the model sees a picture of this size: see `fit_size`."""
        return fit_size(*size, factor=self.factor, max_tokens=self.max_tokens)

    def picture(self, frame: Frame) -> Picture:
        """The frame at that size: see `fit_picture`."""
        return np.array(_resize(frame.image, self.size(frame.size)))


def decode_picture(encoded: str, field: str) -> Picture:
    """Decode one frame at its full size: (height, width, 3), writable. Arguments and errors as for `decode_frame`."""
    return np.array(decode_frame(encoded, field).image)


def decode_frame(
    encoded: str, field: str, least: Callable[[Size], Size] | None = None, budget: DecodeBudget | None = None
) -> Frame:
    """Decode one frame.

    Args:
        encoded: standard base64 (RFC 4648 section 4) of a JPEG, PNG or WebP file, without line breaks.
        field: the frame's name in an error, such as `images[2]`.
        least: the frame's size to the size that is needed of it. It comes out at 1/2, 1/4 or 1/8 of its size where both
            sides are still that long; None asks for the full size.
        budget: waits until there is room for the decoded pixels.

    Raises:
        InvalidPicture: not base64, not a picture, truncated, animated, or outside the limits. Its detail names
            `field` and the limit and never repeats what was sent.
    """
    data = _decode_base64(encoded, field)
    known = format_of(data, field)
    known.check_parts(data, field)
    try:
        with known.open(BytesIO(data)) as image:
            _check_size(image.width, image.height, field)
            known.check_cost(image, data, field)
            if getattr(image, "is_animated", False):
                raise InvalidPicture(f"{field} is animated; send one still picture a frame")
            scale_key(image)
            turned = is_on_its_side(image)
            size = (image.width, image.height) if turned else (image.height, image.width)
            buffered = known.buffered(image) * image.width * image.height
            scale = _reduce_while_decoding(image, least(size), turned=turned) if least else 1
            with budget.taken(buffered + _pixel_bytes(image, scale)) if budget else nullcontext():
                if not known.is_whole(data):
                    raise InvalidPicture(_damaged(field))
                image.load()
                return Frame(as_seen(reduced(image, scale)), size)
    except Image.DecompressionBombError:
        # Pillow's WebP decoder refuses a huge canvas before it tells the size.
        raise InvalidPicture(_too_large(field)) from None
    except BROKEN_FILE:
        raise InvalidPicture(_damaged(field)) from None


def _reduce_while_decoding(image: ImageFile.ImageFile, least: Size, *, turned: bool) -> int:
    """Have a JPEG decoded at the scale that is large enough; returns by how much the picture must still be divided."""
    height, width = reversed(least) if turned else least
    return 1 if image.draft(None, (width, height)) else scale_for(image.size, (width, height))


def _pixel_bytes(image: ImageFile.ImageFile, scale: int) -> int:
    """Bytes of the decoded picture, and of the copies that bring it into colour where it is not reduced first."""
    pixel = BYTES_A_PIXEL.get(image.mode, 4)
    copies = 0 if scale > 1 else COPIES * 4
    return image.width * image.height * (pixel + copies)


def _decode_base64(encoded: str, field: str) -> bytes:
    if encoded[:5].lower() == "data:":
        raise InvalidPicture(
            f"{field} is a data: URL; send the base64 text alone, without what stands before the comma"
        )
    try:
        return pybase64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidPicture(f"{field} is not base64 (standard alphabet, padded, no line breaks)") from None


def _check_size(width: int, height: int, field: str) -> None:
    if min(width, height) < MIN_SIDE:
        raise InvalidPicture(f"{field} is too small: each side must be {MIN_SIDE} pixels or more")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise InvalidPicture(_too_large(field))
    if max(width, height) > MAX_RATIO * min(width, height):
        raise InvalidPicture(f"{field} is too narrow: one side may be at most {MAX_RATIO} times the other")


def _damaged(field: str) -> str:
    return f"{field} is damaged or cut short and can't be decoded"


def _too_large(field: str) -> str:
    return f"{field} is too large: at most {MAX_PIXELS:,} pixels (7680 x 4320), and {MAX_SIDE:,} a side"


def fit_size(height: int, width: int, *, factor: int, max_tokens: int) -> tuple[int, int]:
    """The size at which the model sees a picture: Qwen's `smart_resize` with a cap and no lower bound.

    Args:
        height: pixels.
        width: pixels.
        factor: pixels a token measures on each side (Qwen2-VL: 28).
        max_tokens: the most tokens the picture may cost.

    Returns:
        (height, width), each a multiple of `factor` and at least one, together at most `max_tokens` tokens. The
        picture is scaled down to the cap and never up, but for rounding to the grid.
    """
    rows, columns = max(1, round(height / factor)), max(1, round(width / factor))
    if rows * columns > max_tokens:
        beta = math.sqrt((height * width) / (max_tokens * factor**2))
        rows = max(1, math.floor(height / beta / factor))
        columns = max(1, math.floor(width / beta / factor))
        # A side held at one token leaves the other too long; smart_resize overshoots its cap there.
        longest = max_tokens // min(rows, columns)
        rows, columns = min(rows, longest), min(columns, longest)
    return rows * factor, columns * factor


def fit_picture(picture: Picture, *, factor: int, max_tokens: int) -> Picture:
    """Scale a picture to `fit_size`, bicubic and antialiased as Qwen's image processor does it.

    Args:
        picture: (height, width, 3) RGB.
        factor: pixels a token measures on each side.
        max_tokens: the most tokens the picture may cost.
    """
    size = fit_size(*picture.shape[:2], factor=factor, max_tokens=max_tokens)
    return picture if picture.shape[:2] == size else np.array(_resize(Image.fromarray(picture), size))


def _resize(image: Image.Image, size: Size) -> Image.Image:
    height, width = size
    return image.resize((width, height), Image.Resampling.BICUBIC)  # a mere copy where it has that size
