"""Pictures of every kind that the wire may carry, made without the code under test."""

from __future__ import annotations

import base64
import struct
import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from qwen_shots.media import Picture

HEIGHT, WIDTH = 48, 72


def scene(height: int = HEIGHT, width: int = WIDTH) -> Picture:
    """A smooth, asymmetrical colour picture, so that a wrong turn or a swapped channel shows."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 255 * x / width, 255 * y / height
    blue = 127 + 120 * np.sin(x / 17 + y / 9)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def by_opencv(data: bytes) -> Picture:
    """The picture as OpenCV shows it: three channels, EXIF applied, transparency and profiles ignored."""
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.asarray(decoded[..., ::-1], dtype=np.uint8)


def on_white(colour: NDArray[Any], alpha: NDArray[Any]) -> NDArray[np.float64]:
    """Porter-Duff `over` on white paper; alpha 0..1, (height, width)."""
    cover = alpha[..., None]
    return np.asarray(colour * cover + 255.0 * (1 - cover), dtype=np.float64)


def png(depth: int, colour_type: int, samples: NDArray[Any], *chunks: tuple[bytes, bytes]) -> bytes:
    """Write a PNG by the book (W3C PNG, third edition), for kinds that Pillow can't write.

    Args:
        depth: bits a sample.
        colour_type: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA.
        samples: (height, width) or (height, width, channels), 0..2**depth - 1.
        chunks: extra chunks before the pixels.
    """
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + _packed(row.reshape(-1), depth) for row in samples)
    parts: Sequence[tuple[bytes, bytes]] = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, body) for name, body in parts)


def _packed(row: NDArray[Any], depth: int) -> bytes:
    if depth == 16:
        return row.astype(">u2").tobytes()
    bits = np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - depth :]
    return np.packbits(bits.reshape(-1)).tobytes()


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def exif(orientation: int, order: str = "<") -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\0\0" + mark + struct.pack(order + "IH", 8, 1) + entry + struct.pack(order + "I", 0)


# Linear light of the profile's primaries in XYZ (D50), as columns: Adobe RGB (1998), section 4.3.6.
ADOBE_RGB = np.array([[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]])
# sRGB's, adapted to D50 (Bradford), as in the ICC's own sRGB profile.
SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
GAMMA = 563 / 256  # Adobe RGB's, 2.19921875


def icc_profile() -> bytes:
    """Adobe RGB as a version 2 matrix profile (ICC.1:2001-04)."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(GAMMA * 256)) + b"\0\0"
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 6) + b"Adobe\0" + b"\0" * 78}
    tags[b"cprt"] = b"text\0\0\0\0none\0\0\0\0"
    tags[b"wtpt"] = _xyz(0.9642, 1.0, 0.8249)
    for letter, column in zip((b"r", b"g", b"b"), ADOBE_RGB.T, strict=True):
        tags[letter + b"XYZ"] = _xyz(*column)
        tags[letter + b"TRC"] = curve
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    size = start + len(body)
    head = struct.pack(">I", size) + b"\0" * 4 + b"\x02\x40\0\0" + b"mntrRGB XYZ " + b"\0" * 12 + b"acsp" + b"\0" * 28
    head += struct.pack(">III", *(round(part * 65536) for part in (0.9642, 1.0, 0.8249)))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _xyz(*parts: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(part * 65536) for part in parts))


def adobe_to_srgb(picture: Picture) -> NDArray[np.float64]:
    """The colour management by formula: to linear light, between the primaries, to sRGB's curve."""
    linear = (picture / 255.0) ** GAMMA @ (np.linalg.inv(SRGB) @ ADOBE_RGB).T
    linear = linear.clip(0, 1)
    return np.asarray(255 * np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055))
