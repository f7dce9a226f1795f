"""Which way up a picture is.

Pillow's own EXIF reader warns on damaged data and falls back to XMP, which browsers don't; one tag is needed here.
"""

from __future__ import annotations

import struct

ORIENTATION_TAG = 0x0112
SHORT = 3  # EXIF's name for 16 bits


def orientation(exif: bytes) -> int:
    r"""The orientation tag of an EXIF block (Exif 2.32, section 4.6.4), 1..8.

    Args:
        exif: the block, with or without `Exif\0\0` before it; may be empty.

    Returns:
        The tag's value; 1 (upright) where it is absent, out of range or can't be read.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(count):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, start + 2 + 12 * entry)
            if tag == ORIENTATION_TAG:
                return int(value) if kind == SHORT and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
