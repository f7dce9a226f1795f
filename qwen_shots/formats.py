"""The picture formats that are served: how a file of each is known, opened and weighed. `FORMATS` is the table."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import ImageFile, JpegImagePlugin, WebPImagePlugin

from qwen_shots import jpeg_end
from qwen_shots.errors import InvalidPicture
from qwen_shots.png_colour import open_png

MAX_PIXELS = 7680 * 4320  # 8K UHD, the largest frame of a film

# A progressive JPEG is decoded in passes over the whole picture, 10 as encoders write it; a file of some kB can ask for
# thousands, each 9 ms at 8K. So many passes may a picture have, and the largest one fewer.
MAX_SCANS = 100
MAX_PIXELS_SCANNED = 20 * MAX_PIXELS
START_OF_SCAN = b"\xff\xda"

# What else makes a decoder slow, each held to about a second of a processor of 2023 (benchmarks/stress/pictures.py): a
# PNG's unpacked bytes, of which 8 bits RGB at 8K UHD has so many; a WebP's pixels; a progressive JPEG's coded bytes.
MAX_PNG_BYTES = 3 * MAX_PIXELS
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the colour type of its header
MAX_WEBP_PIXELS = MAX_PIXELS // 2
MAX_PROGRESSIVE_BYTES = 24 * 2**20
DECODINGS_WITHOUT_END = 3  # of a JPEG without its last marker: two find out whether it is whole

# Pillow reads what lies beside the pixels in Python, some microseconds a part, and a file can hold millions of empty
# parts. Cameras and editors write some hundred; a PNG's pixels come in parts too, of 8 KiB as libpng writes them.
MAX_PARTS = 1000
BYTES_A_PNG_PART = 1024
QUANTIZATION_TABLE_BYTES = 65
QUANTIZATION_TABLES, PHOTOSHOP = 0xDB, 0xED  # segments of a JPEG that hold many parts
PHOTOSHOP_PART = b"8BIM"

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_HEADER = b"\0\0\0\x0dIHDR"


@dataclass(frozen=True, slots=True)
class PictureFormat:
    """A format of pictures.

    Attributes:
        name: as people know it.
        is_file: whether a file's bytes are of this format, by its signature.
        check_parts: refuses a file whose parts are too many or in a wrong order; before Pillow reads any of them.
        open: reads the header.
        check_cost: refuses what would hold its decoder for longer than a second; by the header, before any pixel.
        buffered: bytes for each pixel of the file that the decoder holds beside the picture that it gives.
        is_whole: whether all data of a file is there whose end the decoder doesn't look for.
    """

    name: str
    is_file: Callable[[bytes], bool]
    check_parts: Callable[[bytes, str], None]
    open: Callable[[BytesIO], ImageFile.ImageFile]
    check_cost: Callable[[ImageFile.ImageFile, bytes, str], None]
    buffered: Callable[[ImageFile.ImageFile], int]
    is_whole: Callable[[bytes], bool] = lambda _: True


def format_of(data: bytes, field: str) -> PictureFormat:
    """The format that the first bytes tell. Not Pillow's guess among dozens, some of which are slow or risky.

    Raises:
        InvalidPicture: it is none that is served.
    """
    for known in FORMATS:
        if known.is_file(data):
            return known
    raise InvalidPicture(f"{field} is not a {_either([known.name for known in FORMATS])} picture")


def _either(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


# --- JPEG ------------------------------------------------------------------------------------------------------------


def _check_jpeg_parts(data: bytes, field: str) -> None:
    """Walk over the segments up to the first scan, as Pillow does."""
    at, parts = 2, 0
    while data[at : at + 1] == b"\xff" and data[at : at + 2] != START_OF_SCAN:
        parts += 1
        if data[at + 1 : at + 2] == b"\xff":  # a fill byte
            at += 1
        else:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            parts += _parts_within(data, at, end)
            at = max(end, at + 2)
        if parts > MAX_PARTS:
            raise InvalidPicture(f"{field} is a JPEG of too many segments: at most {MAX_PARTS:,} before its pixels")


def _parts_within(data: bytes, at: int, end: int) -> int:
    kind = data[at + 1] if at + 1 < len(data) else 0
    if kind == QUANTIZATION_TABLES:
        return (end - at) // QUANTIZATION_TABLE_BYTES
    return data.count(PHOTOSHOP_PART, at, end) if kind == PHOTOSHOP else 0


def _check_jpeg(image: ImageFile.ImageFile, data: bytes, field: str) -> None:
    # The coded data itself never holds these two bytes. This is eight times as fast as data.count, and lets go of the
    # interpreter's lock.
    code = np.frombuffer(data, np.uint8)
    scans = int(np.count_nonzero((code[:-1] == START_OF_SCAN[0]) & (code[1:] == START_OF_SCAN[1])))
    has_end = jpeg_end.has_end(data)
    cost = 1 if has_end else DECODINGS_WITHOUT_END
    less = "" if has_end else f"; divided by {cost} as its last marker (EOI) is missing"
    if scans > MAX_SCANS or cost * scans * image.width * image.height > MAX_PIXELS_SCANNED:
        raise InvalidPicture(f"{field} is a JPEG of too many scans: {MAX_SCANS} are allowed, 20 at 7680 x 4320{less}")
    if scans > 1 and cost * len(data) > MAX_PROGRESSIVE_BYTES:
        raise InvalidPicture(
            f"{field} is a JPEG of several scans and more than 24 MiB{less}; send it in one scan (baseline)"
        )
    image.info["scans"] = scans
    image.info["has_end"] = has_end


def _jpeg_buffer(image: ImageFile.ImageFile) -> int:
    # libjpeg keeps the coefficients, 16 bits each, of what comes in several scans.
    coefficients = 2 * len(image.getbands()) if image.info["scans"] > 1 else 0
    # Whether a picture without its end is whole takes one of the full size, and a copy of its pixels.
    return coefficients + (0 if image.info["has_end"] else 4 + len(image.getbands()))


def _open_jpeg(file: BytesIO) -> ImageFile.ImageFile:
    data = file.getvalue()
    return JpegImagePlugin.JpegImageFile(file if jpeg_end.has_end(data) else BytesIO(jpeg_end.with_end(data)))


# --- PNG -------------------------------------------------------------------------------------------------------------


def _check_png_parts(data: bytes, field: str) -> None:
    """The header comes first and once: Pillow takes its size from the last one, and its cost is judged by the first."""
    at, parts, most = len(PNG_SIGNATURE), 0, MAX_PARTS + len(data) // BYTES_A_PNG_PART
    while at < len(data):
        parts += 1
        if data.startswith(PNG_HEADER, at) != (parts == 1) or (parts > 1 and data[at + 4 : at + 8] == PNG_HEADER[4:]):
            raise InvalidPicture(f"{field} is a PNG whose first part, and no other, must be its header (IHDR)")
        if parts > most:
            raise InvalidPicture(
                f"{field} is a PNG of too many parts: at most {MAX_PARTS:,}, and one more for each KiB"
            )
        at += 12 + int.from_bytes(data[at : at + 4], "big")


def _check_png(image: ImageFile.ImageFile, data: bytes, field: str) -> None:
    bits = data[24] * PNG_CHANNELS.get(data[25], 4)
    # To convert the colours takes as long again.
    converts = image.info.get("icc_profile") or image.info["encoding"]
    most = MAX_PNG_BYTES // 2 if converts else MAX_PNG_BYTES
    if image.height * math.ceil(image.width * bits / 8) > most:
        raise InvalidPicture(
            f"{field} is a PNG of too many bytes: at most {MAX_PNG_BYTES:,} unpacked (8 bits RGB at 7680 x 4320), "
            "half of that with a colour profile"
        )


# --- WebP ------------------------------------------------------------------------------------------------------------


def _check_webp(image: ImageFile.ImageFile, _: bytes, field: str) -> None:
    if image.width * image.height > MAX_WEBP_PIXELS:
        raise InvalidPicture(f"{field} is a WebP of too many pixels: at most {MAX_WEBP_PIXELS:,}")


FORMATS = (
    PictureFormat(
        "JPEG",
        is_file=lambda data: data.startswith(b"\xff\xd8\xff"),
        check_parts=_check_jpeg_parts,
        # A phone's MPO is a JPEG with more pictures behind it; this decoder sees the first one, as browsers do.
        open=_open_jpeg,
        check_cost=_check_jpeg,
        buffered=_jpeg_buffer,
        is_whole=lambda data: jpeg_end.has_end(data) or jpeg_end.is_whole(data),
    ),
    PictureFormat(
        "PNG",
        is_file=lambda data: data.startswith(PNG_SIGNATURE),
        check_parts=_check_png_parts,
        open=open_png,
        check_cost=_check_png,
        buffered=lambda _: 0,
    ),
    PictureFormat(
        "WebP",
        is_file=lambda data: data.startswith(b"RIFF") and data[8:12] == b"WEBP",
        check_parts=lambda *_: None,  # they are read in C
        open=WebPImagePlugin.WebPImageFile,
        check_cost=_check_webp,
        buffered=lambda _: 12,  # its animation decoder's two canvases and the bytes that it hands over, RGBA each
    ),
)
