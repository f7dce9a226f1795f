"""JPEGs whose last marker is missing: shown where all their data is there, refused where some is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from qwen_shots.errors import InvalidPicture
from qwen_shots.media import decode_frame, decode_picture
from tests.qwen_shots.pictures import base64_text, by_opencv, encode, scene

END = b"\xff\xd9"
FLAT = Image.new("RGB", (72, 48), (90, 90, 90))
KINDS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "own tables": {"optimize": True},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "4:4:4": {"subsampling": 0},
    "coarse": {"quality": 5},
}


def jpeg(picture: Image.Image, **options: Any) -> bytes:
    data = encode(picture, "JPEG", **options)
    assert data.endswith(END)
    return data


def pictures() -> list[Image.Image]:
    noise = np.random.default_rng(5).integers(0, 256, (48, 72, 3), dtype=np.uint8)
    return [Image.fromarray(scene()), Image.fromarray(noise), Image.fromarray(scene()).convert("L"), FLAT]


@pytest.mark.parametrize("after", [b"", bytes(1), bytes(600)])
@pytest.mark.parametrize("kind", KINDS)
def test_all_data_without_the_last_marker(kind: str, after: bytes) -> None:
    for picture in pictures():
        data = jpeg(picture, **KINDS[kind])
        shown = decode_picture(base64_text(data[:-2] + after), "images[0]")
        assert (shown == decode_picture(base64_text(data), "images[0]")).all()
        assert np.abs(shown.astype(int) - by_opencv(data)).max() <= 3


@pytest.mark.parametrize("after", [b"", bytes(600)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.95])
def test_missing_data_is_refused(kind: str, share: float, after: bytes) -> None:
    for picture in pictures():
        data = jpeg(picture, **KINDS[kind])
        start = data.index(b"\xff\xda") + 14
        cut = start + int(share * (len(data) - 6 - start))
        with pytest.raises(InvalidPicture, match="cut short"):
            decode_picture(base64_text(data[:cut] + after), "images[0]")


def test_a_few_missing_bytes_are_refused() -> None:
    data = jpeg(Image.fromarray(scene()))
    for lost in range(3, 40):
        with pytest.raises(InvalidPicture, match="cut short"):
            decode_picture(base64_text(data[: -2 - lost]), "images[0]")


def test_missing_scans_are_refused() -> None:
    """A progressive picture that ends between two scans can be shown, but coarsely."""
    data = jpeg(Image.fromarray(scene()), progressive=True)
    scans = [at for at in range(len(data)) if data.startswith(b"\xff\xda", at)]
    assert len(scans) > 5
    for at in scans[1:]:
        tables = data.rfind(b"\xff\xc4", 0, at)
        with pytest.raises(InvalidPicture, match="cut short"):
            decode_picture(base64_text(data[: tables if tables > scans[0] else at]), "images[0]")


def test_what_is_decoded_at_a_reduced_scale_is_checked_at_the_full_one() -> None:
    data = jpeg(Image.fromarray(scene(480, 720)))
    small = decode_frame(base64_text(data[:-2]), "images[0]", lambda _: (48, 72))
    assert small.image.size == (90, 60)
    with pytest.raises(InvalidPicture, match="cut short"):
        decode_frame(base64_text(data[:-10]), "images[0]", lambda _: (48, 72))


def test_what_is_decoded_three_times_may_cost_a_third() -> None:
    """18 scans of 4,096 x 4,096 are within the limit of 20 at 7680 x 4320, and three times as many are not."""
    data = jpeg(Image.new("L", (4096, 4096)), progressive=True)
    scans = data[data.index(b"\xff\xda") : -2]
    assert scans.count(b"\xff\xda") == 6
    many = data[:-2] + 2 * scans
    assert decode_picture(base64_text(many + END), "images[0]").shape == (4096, 4096, 3)
    with pytest.raises(InvalidPicture, match="divided by 3"):
        decode_picture(base64_text(many), "images[0]")
