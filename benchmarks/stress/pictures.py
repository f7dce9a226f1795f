"""Real broken pictures from folders that are named, and good ones at the limits: none takes long or much memory."""

from __future__ import annotations

import asyncio
import io
import random
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageFile

from benchmarks.stress.bars import Bar, at_most, none_of
from benchmarks.stress.kinds import png, shot
from benchmarks.stress.raw import exchange, post_json
from benchmarks.stress.target import target

SLOWEST_SECONDS = 1.0
MEMORY_MIB = 300.0
# A body of 64 MiB, its text, its bytes, and the pixels twice.
MEMORY_AT_THE_LIMITS_MIB = 700.0
LARGEST_BYTES = 40 * 2**20  # of a file; more does not fit into a body of 64 MiB


def check(folders: Iterable[Path]) -> list[Bar]:
    """Send each file of each folder as a shot of its own."""
    bars = [_check_all("pictures at the limits", at_the_limits(), MEMORY_AT_THE_LIMITS_MIB)]
    for folder in folders:
        files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.stat().st_size < LARGEST_BYTES]
        named = ((file.name, file.read_bytes()) for file in files)
        bars.append(_check_all(f"{len(files)} files of {folder.name}", named, MEMORY_MIB))
    return [bar for some in bars for bar in some]


def at_the_limits() -> Iterator[tuple[str, bytes]]:
    """Good pictures that cost a decoder as much as any may: 7680 x 4320, noise and none, in all formats."""
    ImageFile.MAXBLOCK = 2**27  # its progressive JPEG encoder wants the whole file in one buffer
    noise = np.frombuffer(random.Random(1).randbytes(4320 * 7680 * 3), np.uint8).reshape(4320, 7680, 3)
    for kind, options in (("JPEG", {"quality": 95}), ("JPEG", {"progressive": True}), ("PNG", {"compress_level": 1})):
        for size in (7680 * 4320, 3840 * 2160):
            height = round((size * 9 / 16) ** 0.5)
            buffer = io.BytesIO()
            Image.fromarray(noise[:height, : height * 16 // 9]).save(buffer, kind, **options)
            yield f"{kind} noise {options} {height} lines", buffer.getvalue()
    for kind in ("JPEG", "PNG", "WEBP"):
        buffer = io.BytesIO()
        Image.new("RGB", (7680, 4320), "red").save(buffer, kind)
        yield f"{kind} of one colour", buffer.getvalue()
    buffer = io.BytesIO()
    Image.fromarray(noise[:1080, :1920]).save(buffer, "WEBP", quality=90)
    yield "WEBP noise", buffer.getvalue()
    soft = Image.fromarray(noise[:180, :320]).resize((7680, 4320), Image.Resampling.BICUBIC)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for told, picture in (("RGB at 8K", soft), ("RGBA", soft.convert("RGBA").crop((0, 0, 6144, 4040)))):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=2, icc_profile=profile)
        yield f"PNG with a profile, {told}", buffer.getvalue()
    turned = Image.Exif()
    turned[0x0112] = 6
    buffer = io.BytesIO()
    soft.quantize(256).save(buffer, "PNG", transparency=3, icc_profile=profile, exif=turned)
    yield "PNG of a palette with transparency, a profile and a turn", buffer.getvalue()
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(soft.convert("L")).astype(np.uint16) * 257).save(buffer, "PNG", compress_level=2)
    yield "PNG of 16-bit grey at 8K", buffer.getvalue()
    for lossless in (False, True):
        buffer = io.BytesIO()
        Image.fromarray(noise[:3048, :5440]).save(
            buffer, "WEBP", quality=0 if lossless else 75, method=0, lossless=lossless
        )
        yield f"WEBP noise, lossless {lossless}", buffer.getvalue()
    yield "a PNG that unpacks to nothing", png(7680, 4320, zlib.compress(bytes(7681 * 4320), 9))
    for filtered in range(5):
        line = bytes([filtered]) + bytes(8 * 4096)
        yield f"PNG of 16 bits and transparency, filter {filtered}", png(4096, 3036, zlib.compress(line * 3036), 16, 6)


def _check_all(name: str, files: Iterable[tuple[str, bytes]], memory_mib: float) -> list[Bar]:
    with target({"batch_tokens": 10_000}) as server:
        asyncio.run(exchange(server.port, post_json("/analyze", shot(small_picture()))))
        idle = server.memory_mib
        server.forget_peak()
        statuses: Counter[int] = Counter()
        wrong, slow = [], [(0.0, "")]
        for told, data in files:
            began = server.cpu_seconds
            answer = asyncio.run(exchange(server.port, post_json("/analyze", shot(data))))
            slow.append((server.cpu_seconds - began, told))
            statuses[answer.status] += 1
            if answer.status not in {200, 413, 422}:
                wrong.append(f"{told}: {answer.status}")
        peak = server.peak_mib
    told = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items()))
    seconds, slowest = max(slow)
    return [
        none_of(f"{name} ({told})", "5xx or lost connection", wrong),
        at_most(f"{name}, the slowest: {slowest}", seconds, SLOWEST_SECONDS, "processor seconds of the server"),
        at_most(name, peak - idle, memory_mib, f"MiB above {idle:.0f} MiB"),
    ]


def small_picture() -> bytes:
    """A picture of one token."""
    buffer = io.BytesIO()
    Image.new("RGB", (28, 28)).save(buffer, "PNG")
    return buffer.getvalue()
