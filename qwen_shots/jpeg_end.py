"""JPEGs without their last marker: some cameras and programs leave it out, and some downloads end before it."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from io import BytesIO

from PIL import JpegImagePlugin

END = b"\xff\xd9"
START_OF_SCAN = b"\xff\xda"
PROGRESSIVE = frozenset({0xC2, 0xCA})
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, without DHT, JPG and DAC
COEFFICIENTS = 64
# No two bits at one place are the same, so that any that is read makes a difference.
FILLERS = (b"\xaa" * 128, b"\x55" * 128)


def has_end(data: bytes) -> bool:
    """Whether the picture's last marker (EOI) is there."""
    return data.rfind(END) > data.rfind(START_OF_SCAN)


def with_end(data: bytes) -> bytes:
    """The same file with the marker, in place of zeros with which some programs fill up."""
    return _coded(data) + END


def is_whole(data: bytes) -> bool:
    """Whether all coded data of a file without its last marker is there; decodes it twice, at its full size.

    libjpeg passes over what comes after the last pixel's data. So what is added there changes the picture only where
    some data is missing.
    """
    return _has_all_scans(data) and len({_pixels(_coded(data) + filler + END) for filler in FILLERS}) == 1


def _coded(data: bytes) -> bytes:
    # The data's own last byte may be a zero: one is kept.
    return data[: len(data.rstrip(b"\0")) + 1]


def _pixels(data: bytes) -> bytes:
    with JpegImagePlugin.JpegImageFile(BytesIO(data)) as image:
        return blake2b(image.tobytes()).digest()


def _has_all_scans(data: bytes) -> bool:
    """Whether the scans hold each coefficient of each component to its last bit (ITU-T T.81, B.2.3 and G.1)."""
    missing: set[tuple[int, int]] = set()
    bands = 1
    for marker, body in _segments(data):
        if marker in FRAMES and len(body) > 5:
            bands = COEFFICIENTS if marker in PROGRESSIVE else 1
            missing = {(component, band) for component in body[6::3] for band in range(bands)}
        elif marker == START_OF_SCAN[1]:
            count = body[0] if body else 0
            if len(body) < 4 + 2 * count:
                return False
            first, last, bits = body[1 + 2 * count : 4 + 2 * count]
            if bits & 0x0F == 0:
                last = min(last, bands - 1)
                missing -= {
                    (component, band) for component in body[1 : 1 + 2 * count : 2] for band in range(first, last + 1)
                }
    return not missing


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and body of each segment; behind a scan's header its data is passed over."""
    at = 2
    while at + 4 <= len(data):
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at] != 0xFF or marker in (0x00, 0xFF) or 0xD0 <= marker <= 0xD7:
            # Coded data, of which FF 00 and the restart markers are part, or a fill byte.
            at = data.find(b"\xff", at + 1)
            if at < 0:
                return
            continue
        yield marker, data[at + 4 : end]
        at = end
