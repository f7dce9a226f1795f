"""Decoded pictures made smaller, a strip at a time: what full size costs beside them is a strip's."""

from __future__ import annotations

from PIL import Image

from qwen_shots.colour import to_8_bit

SCALES = (8, 4, 2)  # as libjpeg has them
STRIP_PIXELS = 2**20


def scale_for(size: tuple[int, int], least: tuple[int, int]) -> int:
    """By how much both sides may be divided and still be as long as needed; either order of the sides, the same one."""
    most = min(side // needed for side, needed in zip(size, least, strict=True))
    return next((scale for scale in SCALES if scale <= most), 1)


def reduced(image: Image.Image, scale: int) -> Image.Image:
    """The mean of each square of `scale` pixels: L, LA, RGB or RGBA, transparency counted in.

    Args:
        image: as it was decoded, of any mode; its colour profile and orientation stay with it.
        scale: 1 gives the picture itself.
    """
    if scale == 1:
        return image
    lines = scale * max(1, STRIP_PIXELS // (image.width * scale))
    small: Image.Image | None = None
    for top in range(0, image.height, lines):
        part = image.crop((0, top, image.width, min(top + lines, image.height)))
        strip = to_8_bit(part).reduce(scale)
        small = small or Image.new(strip.mode, (strip.width, -(-image.height // scale)))
        small.paste(strip, (0, top // scale))
    assert small is not None  # no picture is without lines
    small.info = {name: value for name, value in image.info.items() if name != "transparency"}
    return small
