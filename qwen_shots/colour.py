"""A decoded file as a person would see it: upright, in sRGB, with transparency laid on white."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageCms, ImageFile

from qwen_shots.exif import orientation
from qwen_shots.png_colour import Encoding

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

GREY_OF_16_BIT = ((np.arange(65_536) + 128) // 257).astype(np.uint8)

ON_ITS_SIDE = frozenset({5, 6, 7, 8})


def is_on_its_side(image: Image.Image) -> bool:
    """Whether width and height change places when the picture is turned upright."""
    return orientation(image.info.get("exif", b"")) in ON_ITS_SIDE


def as_seen(image: Image.Image) -> Image.Image:
    """Turn a decoded file upright, apply its colour profile, and lay it on white; the result is RGB."""
    turn = UPRIGHT.get(orientation(image.info.get("exif", b"")))
    profile = image.info.get("icc_profile")
    colour, alpha = _colour_and_alpha(image)
    seen = _to_srgb(colour, profile, image.info.get("encoding"))
    if alpha is not None:
        paper = Image.new("RGB", seen.size, "white")
        paper.paste(seen, mask=alpha)
        seen = paper
    return seen if turn is None else seen.transpose(turn)


def _colour_and_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Split a picture into L, RGB or CMYK, and its transparency (L), if any."""
    image = to_8_bit(image)
    if image.mode not in ("LA", "RGBA"):
        return image, None
    return image.convert("L" if image.mode == "LA" else "RGB"), image.getchannel("A")


def to_8_bit(image: Image.Image) -> Image.Image:
    """A picture as L, LA, RGB, RGBA or CMYK, its transparent colour as an alpha channel."""
    has_key = "transparency" in image.info
    if image.mode.startswith("I"):
        return _from_16_bit_grey(image)
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if has_key or image.mode == "PA" else "RGB")
    if has_key:
        return image.convert("RGBA" if image.mode == "RGB" else "LA")
    return image.convert("L") if image.mode == "1" else image


def _from_16_bit_grey(image: Image.Image) -> Image.Image:
    """Scale 0..65535 to 0..255; Pillow's own conversion clips all above 255 to white."""
    deep = np.asarray(image).astype(np.uint16)
    grey = Image.fromarray(GREY_OF_16_BIT[deep])
    key = image.info.get("transparency")
    if key is None:
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.where(deep == key, 0, 255).astype(np.uint8))))


def _to_srgb(colour: Image.Image, profile: bytes | None, encoding: Encoding | None) -> Image.Image:
    """Apply the embedded colour profile; without one that can be applied, what a PNG says besides."""
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            managed = ImageCms.profileToProfile(colour, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            managed = None
        if managed is not None:
            return managed
    return encoding.to_srgb(colour) if encoding else colour.convert("RGB")


def scale_key(image: ImageFile.ImageFile) -> None:
    """Bring a PNG's transparent colour to the scale that Pillow gives the pixels; it leaves the file's own."""
    key = image.info.get("transparency")
    raw_mode = image.tile[0].args if image.tile else None
    if isinstance(key, tuple) and raw_mode == "RGB;16B":
        image.info["transparency"] = tuple(part >> 8 for part in key)
    elif isinstance(key, int) and raw_mode in ("L;2", "L;4"):
        image.info["transparency"] = key * {"L;2": 85, "L;4": 17}[raw_mode]
