"""Small films, written with PyAV, whose every picture bears its own number."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qwen_shots.media import Picture

RATE = 24
HEIGHT, WIDTH = 96, 160
BITS = 10
SOUND_RATE = 44_100

# Left half, right half: scenes that differ in all channels.
SCENES = (((200, 40, 40), (90, 20, 20)), ((30, 60, 190), (70, 120, 220)), ((60, 170, 60), (200, 210, 90)))


def picture(number: int, scene: int = 0, height: int = HEIGHT, width: int = WIDTH) -> Picture:
    """A scene of two colours; the lower half is ten bars, white for a one of the number's bits.

    The bits are a Gray code's, so that from picture to picture one bar changes, and no detector sees a cut in it.
    """
    image = np.empty((height, width, 3), np.uint8)
    left, right = SCENES[scene]
    image[:, : width // 2], image[:, width // 2 :] = left, right
    for bit in range(BITS):
        value = 235 if (number ^ number >> 1) >> bit & 1 else 20
        image[height // 2 :, bit * width // BITS : (bit + 1) * width // BITS] = value
    return image


def number_of(image: Image.Image) -> int:
    """The number that a picture bears."""
    grey = np.asarray(image.convert("L"))
    height, width = grey.shape
    row = grey[height // 2 + height // 8 : height - height // 8].mean(axis=0)
    bars = [row[int((bit + 0.3) * width / BITS) : int((bit + 0.7) * width / BITS)].mean() for bit in range(BITS)]
    number = 0
    for bar in reversed(bars):
        number = number << 1 | (number & 1 ^ int(bar > 127))
    return number


def opened(jpeg: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(jpeg))
    assert image.format == "JPEG"
    return image


def scenes(*lengths: int) -> list[Picture]:
    """One scene after another, each of so many pictures."""
    plan = [scene for scene, length in enumerate(lengths) for _ in range(length)]
    return [picture(number, scene) for number, scene in enumerate(plan)]


def tone(hertz: float, seconds: float, level: float = 0.3) -> NDArray[np.float32]:
    """A sine at SOUND_RATE, amplitude `level`."""
    time = np.arange(round(seconds * SOUND_RATE)) / SOUND_RATE
    return (level * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def write_film(
    path: Path,
    pictures: Sequence[Picture],
    *,
    times: Sequence[float] | None = None,
    sound: NDArray[np.float32] | None = None,
    sound_starts: float = 0.0,
    aspect: Fraction | None = None,
    web: bool = False,
) -> Path:
    """Write a film; the path's ending picks the format.

    Args:
        path: where to.
        pictures: (height, width, 3) each; may be empty.
        times: seconds of each picture; None is RATE a second.
        sound: one channel at SOUND_RATE.
        sound_starts: seconds.
        aspect: a pixel's width over its height.
        web: the index stands before the pictures (MP4).
    """
    with av.open(str(path), "w", options={"movflags": "faststart"} if web else {}) as container:
        # All tracks stand in the header, so they are made before anything is written.
        video = _video_track(container, pictures[0], times, aspect) if len(pictures) else None
        codec = "aac" if path.suffix == ".mp4" else "pcm_s16le"
        audio = container.add_stream(codec, rate=SOUND_RATE, layout="mono") if sound is not None else None
        assert audio is None or isinstance(audio, av.AudioStream)
        if video is not None:
            _write_pictures(container, video, pictures, times)
        if audio is not None and sound is not None:
            _write_sound(container, audio, sound, sound_starts)
    return path


def _video_track(
    container: av.container.OutputContainer, image: Picture, times: Sequence[float] | None, aspect: Fraction | None
) -> av.VideoStream:
    stream = container.add_stream("mpeg4", rate=RATE)
    stream.height, stream.width = image.shape[:2]
    stream.pix_fmt, stream.bit_rate, stream.gop_size = "yuv420p", 4_000_000, 12
    stream.codec_context.time_base = Fraction(1, 1000) if times else Fraction(1, RATE)
    if aspect:
        stream.codec_context.sample_aspect_ratio = aspect
    return stream


def _write_pictures(
    container: av.container.OutputContainer,
    stream: av.VideoStream,
    pictures: Sequence[Picture],
    times: Sequence[float] | None,
) -> None:
    for number, image in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(image, "rgb24")
        frame.time_base = Fraction(1, 1000) if times else Fraction(1, RATE)
        frame.pts = round(times[number] * 1000) if times else number
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def _write_sound(
    container: av.container.OutputContainer, stream: av.AudioStream, sound: NDArray[np.float32], starts: float
) -> None:
    frame = av.AudioFrame.from_ndarray(sound[None], "fltp", "mono")
    frame.sample_rate, frame.time_base = SOUND_RATE, Fraction(1, SOUND_RATE)
    frame.pts = round(starts * SOUND_RATE)
    resampler = av.AudioResampler(stream.format, "mono", SOUND_RATE, frame_size=stream.codec_context.frame_size or 1024)
    for part in (*resampler.resample(frame), *resampler.resample(None)):
        container.mux(stream.encode(part))
    container.mux(stream.encode(None))


def set_rotation(path: Path, quarters: int) -> None:
    """Write a display matrix into an MP4: to be shown turned clockwise by so many quarters."""
    set_display_matrix(path, *{1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}[quarters])


def set_display_matrix(path: Path, a: float, b: float, c: float, d: float, x: float = 0, y: float = 0) -> None:
    """Write a display matrix into an MP4: x' = ax + cy + x, y' = bx + dy + y, with y pointing down.

    The matrix is the tkhd box's (ISO 14496-12, 8.3.2), 16.16 fixed point, of the first track.
    """
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    fixed = (round(part * 65536) for part in (a, b, 0, c, d, 0, x, y))
    struct.pack_into(">9i", data, at, *fixed, 1 << 30)
    path.write_bytes(data)
