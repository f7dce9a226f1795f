"""What a file costs is judged before it is read, by its own format's rules."""

from __future__ import annotations

import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from qwen_shots.decode_budget import DecodeBudget
from qwen_shots.errors import InvalidPicture
from qwen_shots.formats import MAX_PARTS, MAX_PNG_BYTES
from qwen_shots.media import decode_picture
from tests.qwen_shots import pictures as made

FIELD = "images[2]"
MIB = 2**20
JPEG = made.encode(Image.fromarray(made.scene()), "JPEG")
PNG = made.encode(Image.fromarray(made.scene()), "PNG")


def refusal(data: bytes) -> str:
    began = time.process_time()
    with pytest.raises(InvalidPicture) as caught:
        decode_picture(made.base64_text(data), FIELD)
    assert time.process_time() - began < 1
    assert FIELD in caught.value.detail
    return caught.value.detail


def chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def header(width: int, height: int, depth: int, colour: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


# 4096 x 4096 of four channels of 16 bits: 134 MB unpacked, and over the limit of a PNG's bytes.
DEEP = chunk(b"IDAT", zlib.compress(bytes(4096 * (4096 * 8 + 1)), 1))
assert MAX_PNG_BYTES < 4096 * 4096 * 8


@pytest.mark.parametrize(
    "data",
    [
        png(chunk(b"tEXt", b"a\0b" + b"\x01\0" * 10), header(4096, 4096, 16, 6), DEEP, chunk(b"IEND")),
        png(chunk(b"gAMA", struct.pack(">I", 45_455)), header(4096, 4096, 16, 6), DEEP, chunk(b"IEND")),
        png(header(4096, 4096, 8, 0), header(4096, 4096, 16, 6), DEEP, chunk(b"IEND")),
        png(header(64, 64, 8, 0), chunk(b"pHYs", bytes(9)), header(4096, 4096, 16, 6), DEEP, chunk(b"IEND")),
        png(chunk(b"IEND"), header(64, 64, 8, 0)),
    ],
    ids=["a text first", "another part first", "two headers", "a header later", "its end first"],
)
def test_the_header_of_a_png_is_its_first_part_and_no_other(data: bytes) -> None:
    assert "IHDR" in refusal(data)


@pytest.mark.parametrize("name", [b"tEXt", b"IDAT", b"pHYs", b"abCd"])
def test_a_png_of_millions_of_parts(name: bytes) -> None:
    assert "too many parts: at most 1,000" in refusal(PNG[:33] + chunk(name) * 2_000_000 + PNG[33:])


def test_a_png_in_parts_as_encoders_write_them() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (1000, 1500, 3), dtype=np.uint8)
    pixels = zlib.compress(np.insert(noise.reshape(1000, -1), 0, 0, axis=1).tobytes(), 1)
    parts = [chunk(b"IDAT", pixels[at : at + 4096]) for at in range(0, len(pixels), 4096)]
    assert len(parts) > MAX_PARTS
    data = png(header(1500, 1000, 8, 2), *parts, chunk(b"IEND"))
    assert (decode_picture(made.base64_text(data), FIELD) == noise).all()


@pytest.mark.parametrize(
    "parts",
    [
        b"\xff\xfe\0\x02" * (4 * MIB),
        b"\xff" * (16 * MIB),
        (b"\xff\xdb\xff\xfd" + (b"\0" + bytes(64)) * 1007 + b"\0" * 76) * 200,
        (b"\xff\xed\xff\xfe" + b"Photoshop 3.0\0" + (b"8BIM\x04\x04\0\0" + bytes(4)) * 5459 + b"\0" * 10) * 200,
    ],
    ids=["empty comments", "fill bytes", "quantization tables", "Photoshop's parts"],
)
def test_a_jpeg_of_millions_of_parts(parts: bytes) -> None:
    assert "too many segments: at most 1,000" in refusal(JPEG[:2] + parts + JPEG[2:])


@pytest.mark.parametrize("count", [1, 900])
def test_a_jpeg_of_some_hundred_parts(count: int) -> None:
    data = JPEG[:2] + b"\xff\xe5\0\x08sesame" * count + JPEG[2:]
    assert (decode_picture(made.base64_text(data), FIELD) == decode_picture(made.base64_text(JPEG), FIELD)).all()


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "JPEG2000", "ICO", "PPM", "AVIF"])
def test_what_is_of_no_format_that_is_served_is_refused_by_its_signature(kind: str) -> None:
    data = made.encode(Image.fromarray(made.scene()), kind)
    assert refusal(data) == f"{FIELD} is not a JPEG, PNG or WebP picture"


def test_what_is_decoded_at_once_fits_into_the_budget() -> None:
    budget = DecodeBudget(100)
    held: list[int] = []
    most = 0
    lock = threading.Lock()

    def decode(size: int) -> None:
        nonlocal most
        with budget.taken(size):
            with lock:
                held.append(size)
                most = max(most, sum(held))
            time.sleep(0.002)
            with lock:
                held.remove(size)

    threads = [threading.Thread(target=decode, args=(size,)) for size in [10, 60, 50, 100, 5, 30, 70] * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)
    assert 60 < most <= 100


def test_a_picture_above_the_budget_is_decoded_alone() -> None:
    budget = DecodeBudget(100)
    order: list[str] = []
    with budget.taken(1):
        large = threading.Thread(target=lambda: _note(budget, 1000, order, "large"))
        large.start()
        small = threading.Thread(target=lambda: _note(budget, 1, order, "small"))
        while not budget._waiting:
            time.sleep(0.001)
        small.start()  # behind the large one, though there were room
        while len(budget._waiting) < 2:
            time.sleep(0.001)
    large.join(timeout=30)
    small.join(timeout=30)
    assert order == ["large", "small"]


def _note(budget: DecodeBudget, size: int, order: list[str], name: str) -> None:
    with budget.taken(size):
        order.append(name)
