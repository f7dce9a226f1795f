"""Frames come out as a person would see them, and what is not a frame is named."""

from __future__ import annotations

import base64
import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from qwen_shots.errors import InvalidPicture
from qwen_shots.media import PictureFit, Size, decode_frame, decode_picture, fit_picture, fit_size
from tests.qwen_shots import pictures as made

FIELD = "images[2]"
SCENE = made.scene()
COLOUR = Image.fromarray(SCENE)
GREY = COLOUR.convert("L")
RAMP = np.tile(np.linspace(0, 1, made.WIDTH), (made.HEIGHT, 1))


def decoded(data: bytes) -> np.ndarray:
    return decode_picture(made.base64_text(data), FIELD)


def assert_seen(data: bytes, expected: np.ndarray) -> None:
    picture = decoded(data)
    assert picture.dtype == np.uint8
    assert picture.shape == expected.shape
    assert np.abs(picture.astype(float) - expected).max() <= 2


def grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(grey, dtype=float)[..., None], 3, axis=-1)


SAME_AS_OPENCV = {
    "jpeg": made.encode(COLOUR, "JPEG"),
    "progressive jpeg": made.encode(COLOUR, "JPEG", progressive=True, subsampling=0),
    "grey jpeg": made.encode(GREY, "JPEG"),
    "png": made.encode(COLOUR, "PNG"),
    "grey png": made.encode(GREY, "PNG"),
    "1-bit png": made.encode(GREY.convert("1"), "PNG"),
    "palette png": made.encode(COLOUR.quantize(64), "PNG"),
    "2-bit grey png": made.png(2, 0, (RAMP * 3).round()),
    "4-bit grey png": made.png(4, 0, (RAMP * 15).round()),
    "16-bit rgb png": made.png(16, 2, SCENE.astype(int) * 257),
    "webp": made.encode(COLOUR, "WEBP", quality=90),
    "lossless webp": made.encode(COLOUR, "WEBP", lossless=True),
    "cmyk jpeg": made.encode(COLOUR.convert("CMYK"), "JPEG", quality=95),
}


@pytest.mark.parametrize("kind", SAME_AS_OPENCV)
def test_decodes_as_opencv_does(kind: str) -> None:
    assert_seen(SAME_AS_OPENCV[kind], made.by_opencv(SAME_AS_OPENCV[kind]))


def test_cmyk_means_ink() -> None:
    flat = np.full((32, 32, 4), (0, 255, 255, 0), dtype=np.uint8)  # magenta and yellow ink are red
    picture = decoded(made.encode(Image.fromarray(flat, "CMYK"), "JPEG", quality=95))
    assert np.abs(picture.astype(int) - (255, 0, 0)).max() <= 2


def test_ycck_jpeg() -> None:
    data = made.encode(COLOUR.convert("CMYK"), "JPEG", quality=95)
    at = data.index(b"Adobe") + 11  # the APP14 marker's transform: 0 is CMYK, 2 is YCCK
    assert data[at] == 0
    data = data[:at] + b"\x02" + data[at + 1 :]
    assert_seen(data, made.by_opencv(data))


def test_16_bit_grey_is_scaled_not_clipped() -> None:
    deep = (RAMP * 65535).round()
    assert_seen(made.png(16, 0, deep), grey_to_rgb(deep / 257))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_lies_on_white(kind: str) -> None:
    pixels = np.dstack([SCENE, (RAMP * 255).round().astype(np.uint8)])
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    assert_seen(made.encode(Image.fromarray(pixels), kind, **options), made.on_white(SCENE, pixels[..., 3] / 255))


@pytest.mark.parametrize("depth", [8, 16])
def test_grey_with_alpha(depth: int) -> None:
    top = 2**depth - 1
    pixels = np.dstack([RAMP[:, ::-1], RAMP]) * top
    expected = made.on_white(grey_to_rgb(RAMP[:, ::-1] * 255), RAMP)
    assert_seen(made.png(depth, 4, pixels.round()), expected)


def test_16_bit_rgba() -> None:
    pixels = np.dstack([SCENE.astype(int) * 257, (RAMP * 65535).round()])
    assert_seen(made.png(16, 6, pixels), made.on_white(SCENE, RAMP))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_with_a_transparent_value(depth: int) -> None:
    top = 2**depth - 1
    pixels = (RAMP * top).round()
    key = int(pixels[0, 0])
    shown = np.where(pixels == key, 255, pixels * 255 / top)
    assert_seen(made.png(depth, 0, pixels, (b"tRNS", struct.pack(">H", key))), grey_to_rgb(shown))
    key = int(pixels[0, made.WIDTH // 3])
    shown = np.where(pixels == key, 255, pixels * 255 / top)
    assert_seen(made.png(depth, 0, pixels, (b"tRNS", struct.pack(">H", key))), grey_to_rgb(shown))


@pytest.mark.parametrize("depth", [8, 16])
def test_rgb_with_a_transparent_colour(depth: int) -> None:
    scale = 1 if depth == 8 else 257
    key = SCENE[20, 30]
    shown = np.where((key == SCENE).all(axis=-1, keepdims=True), 255, SCENE)
    chunk = (b"tRNS", struct.pack(">HHH", *(int(part) * scale for part in key)))
    assert_seen(made.png(depth, 2, SCENE.astype(int) * scale, chunk), shown)


@pytest.mark.parametrize("alphas", [bytes([0]), bytes([0, 85, 170, 255])], ids=["one clear entry", "graded"])
def test_palette_with_transparency(alphas: bytes) -> None:
    palette = np.array([[255, 0, 0], [0, 200, 0], [0, 0, 150], [90, 90, 90]])
    index = (RAMP * 3).round().astype(int)
    full = np.frombuffer(alphas.ljust(4, b"\xff"), np.uint8) / 255
    data = made.png(2, 3, index, (b"PLTE", palette.astype(np.uint8).tobytes()), (b"tRNS", alphas))
    assert_seen(data, made.on_white(palette[index], full[index]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"], ids=["little endian", "big endian"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_turns(kind: str, order: str, orientation: int) -> None:
    turns = [
        lambda a: a,
        lambda a: a[:, ::-1],
        lambda a: a[::-1, ::-1],
        lambda a: a[::-1],
        lambda a: a.transpose(1, 0, 2),
        lambda a: np.rot90(a, -1),
        lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        lambda a: np.rot90(a),
    ]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = made.encode(COLOUR, kind, exif=made.exif(orientation, order), **options)
    upright = made.by_opencv(made.encode(COLOUR, kind, **options))
    assert_seen(data, turns[orientation - 1](upright))
    if kind == "JPEG":  # where OpenCV reads the tag too
        assert_seen(data, made.by_opencv(data))


@pytest.mark.parametrize("block", [b"", b"Exif\0\0", made.exif(9), made.exif(6)[:20], b"Exif\0\0II*\0\xff\xff\xff\xff"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's own reader looks for the resolution, and complains
def test_broken_exif_is_passed_over(block: bytes) -> None:
    assert_seen(made.encode(COLOUR, "PNG", exif=block or None), SCENE)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_colour_profile_is_applied(kind: str) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "PNG": {},
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
    }
    options = kinds[kind]
    data = made.encode(COLOUR, kind, icc_profile=made.icc_profile(), **options)
    expected = made.adobe_to_srgb(made.by_opencv(made.encode(COLOUR, kind, **options)))
    assert np.abs(expected - SCENE).max() > 20, "the profile must matter"
    # Beyond sRGB's gamut a channel is cut off, and near black its curve is steep: look at what lies within.
    inside = ((expected > 8) & (expected < 250)).all(axis=-1)
    assert inside.mean() > 0.3, "enough pixels must be compared"
    assert np.abs(decoded(data).astype(float) - expected)[inside].max() <= 2


def test_profile_under_transparency() -> None:
    pixels = np.dstack([SCENE, (RAMP * 255).round().astype(np.uint8)])
    data = made.encode(Image.fromarray(pixels), "PNG", icc_profile=made.icc_profile())
    managed = decoded(made.encode(COLOUR, "PNG", icc_profile=made.icc_profile()))
    assert_seen(data, made.on_white(managed, pixels[..., 3] / 255))


@pytest.mark.parametrize("profile", [b"no profile", made.icc_profile()[:200], made.icc_profile()[:300]])
def test_broken_profile_is_passed_over(profile: bytes) -> None:
    assert_seen(made.encode(COLOUR, "PNG", icc_profile=profile), SCENE)


def test_profile_of_another_kind_is_passed_over() -> None:
    data = made.encode(GREY, "PNG", icc_profile=made.icc_profile())
    assert_seen(data, grey_to_rgb(np.asarray(GREY)))


def header_only(width: int, height: int) -> bytes:
    """A PNG that tells its size and holds next to no pixels."""
    data = made.png(8, 0, np.zeros((16, 16)))
    ihdr = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + ihdr + struct.pack(">I", zlib.crc32(ihdr)) + data[33:]


def refusal(text: str) -> str:
    with warnings.catch_warnings(), pytest.raises(InvalidPicture) as caught:
        warnings.simplefilter("error")
        decode_picture(text, FIELD)
    assert FIELD in caught.value.detail
    return caught.value.detail


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((1, 1), "16 pixels"),
        ((15, 200), "16 pixels"),
        ((30_000, 30_000), "7680 x 4320"),
        ((10_000, 10_000), "7680 x 4320"),
        ((16_385, 1000), "16,384 a side"),
        ((7681, 4320), "7680 x 4320"),
        ((3200, 16), "20 times"),
        ((16, 321), "20 times"),
    ],
)
def test_size_limits_come_before_the_pixels(size: tuple[int, int], words: str) -> None:
    assert words in refusal(made.base64_text(header_only(*size)))


@pytest.mark.parametrize("size", [(16, 16), (320, 16), (16, 320)])
def test_smallest_and_narrowest_are_served(size: tuple[int, int]) -> None:
    width, height = size
    assert decoded(made.encode(Image.new("RGB", size), "PNG")).shape == (height, width, 3)


def test_huge_webp() -> None:
    size = struct.pack("<I", 16_383 - 1)[:3] * 2
    chunk = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + size
    refusal(made.base64_text(b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animated(kind: str) -> None:
    other = Image.fromarray(SCENE[::-1].copy())
    assert "animated" in refusal(made.base64_text(made.encode(COLOUR, kind, save_all=True, append_images=[other])))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated(kind: str, share: float) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    data = made.encode(Image.fromarray(noise), kind)
    assert "cut short" in refusal(made.base64_text(data[: int(len(data) * share)]))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data:image/png;base64,AAAA", "data: URL"),
        ("SECRET!", "not base64"),
        ("AAA", "not base64"),
        ("AAAA\nAAAA", "not base64"),
        ("_-_-", "not base64"),
        ("ÄÖÜß", "not base64"),
        ("", "not a JPEG"),
        (made.base64_text(b"SECRET in plain text"), "not a JPEG"),
        (made.base64_text(made.encode(COLOUR, "GIF")), "not a JPEG"),
        (made.base64_text(made.encode(COLOUR, "BMP")), "not a JPEG"),
        (made.base64_text(made.encode(COLOUR, "TIFF")), "not a JPEG"),
    ],
)
def test_not_a_picture(text: str, words: str) -> None:
    detail = refusal(text)
    assert words in detail
    assert "SECRET" not in detail


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow complains of what it finds in broken files
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP"]),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=12),
)
def test_damaged_files_are_pictures_or_refused(kind: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(made.encode(COLOUR, kind, exif=made.exif(6), icc_profile=made.icc_profile()))
    for at, value in changes:
        data[at % len(data)] = value
    try:
        picture = decoded(bytes(data))
    except InvalidPicture:
        return
    assert picture.ndim == 3


# --- reduced scale ---------------------------------------------------------------------------------------------------

LARGE = made.scene(180, 320)


@pytest.mark.parametrize(
    ("least", "scale"),
    [((180, 320), 1), ((91, 160), 1), ((90, 161), 1), ((90, 160), 2), ((46, 80), 2), ((45, 80), 4), ((1, 1), 8)],
)
def test_a_jpeg_is_decoded_no_larger_than_needed(least: Size, scale: int) -> None:
    text = made.base64_text(made.encode(Image.fromarray(LARGE), "JPEG", quality=95))
    frame = decode_frame(text, FIELD, lambda _: least)
    assert frame.size == (180, 320)
    assert frame.image.size == (-(-320 // scale), -(-180 // scale))
    averaged = Image.fromarray(LARGE).reduce(scale)
    assert np.abs(np.asarray(frame.image, float) - np.asarray(averaged, float)).mean() <= 1


@given(height=st.integers(16, 200), width=st.integers(16, 200), rows=st.integers(1, 200), columns=st.integers(1, 200))
def test_both_sides_stay_long_enough(height: int, width: int, rows: int, columns: int) -> None:
    text = made.base64_text(made.encode(Image.new("RGB", (width, height)), "JPEG"))
    image = decode_frame(text, FIELD, lambda _: (rows, columns)).image
    assert image.height >= min(rows, height)
    assert image.width >= min(columns, width)


GREY_LARGE = Image.fromarray(LARGE).convert("L")
JPEGS = {
    "plain": made.encode(Image.fromarray(LARGE), "JPEG", quality=95),
    "progressive": made.encode(Image.fromarray(LARGE), "JPEG", quality=95, progressive=True),
    "grey": made.encode(GREY_LARGE, "JPEG", quality=95),
    "cmyk": made.encode(Image.fromarray(LARGE).convert("CMYK"), "JPEG", quality=95),
    "profile": made.encode(Image.fromarray(LARGE), "JPEG", quality=95, icc_profile=made.icc_profile()),
    "on its side": made.encode(Image.fromarray(LARGE), "JPEG", quality=95, exif=made.exif(6)),
}


@pytest.mark.parametrize("kind", JPEGS)
def test_a_reduced_scale_shows_the_same(kind: str) -> None:
    text = made.base64_text(JPEGS[kind])
    asked: list[Size] = []

    def half(size: Size) -> Size:
        asked.append(size)
        return size[0] // 2, size[1] // 2

    whole, halved = decode_frame(text, FIELD), decode_frame(text, FIELD, half)
    assert asked == [whole.size] == [halved.size] == [(whole.image.height, whole.image.width)]
    assert (halved.image.height, halved.image.width) == (whole.size[0] // 2, whole.size[1] // 2)
    assert np.abs(np.asarray(halved.image, float) - np.asarray(whole.image.reduce(2), float)).mean() <= 1


INDEX = made.scene(180, 320)[..., 0] // 64
PALETTE = np.array([[255, 0, 0], [0, 200, 0], [0, 0, 150], [90, 90, 90]])
DEEP = LARGE[..., 0].astype(int) * 257 + LARGE[..., 1]
ALPHA = np.dstack([LARGE, 255 - LARGE[..., 1]])
KEY = int(DEEP[0, 0])
# Name to the file and to what it shows, laid on white, by construction.
REDUCED: dict[str, tuple[bytes, np.ndarray]] = {
    "png": (made.encode(Image.fromarray(LARGE), "PNG"), LARGE),
    "webp": (made.encode(Image.fromarray(LARGE), "WEBP", lossless=True), LARGE),
    "rgba": (made.encode(Image.fromarray(ALPHA), "PNG"), made.on_white(LARGE, ALPHA[..., 3] / 255)),
    "16-bit grey": (made.png(16, 0, DEEP), grey_to_rgb(DEEP / 257)),
    "16-bit grey with a key": (
        made.png(16, 0, DEEP, (b"tRNS", struct.pack(">H", KEY))),
        grey_to_rgb(np.where(DEEP == KEY, 255, DEEP / 257)),
    ),
    "palette": (made.png(2, 3, INDEX, (b"PLTE", PALETTE.astype(np.uint8).tobytes())), PALETTE[INDEX]),
    "palette with transparency": (
        made.png(2, 3, INDEX, (b"PLTE", PALETTE.astype(np.uint8).tobytes()), (b"tRNS", bytes([0, 85]))),
        made.on_white(PALETTE[INDEX], np.array([0, 85, 255, 255])[INDEX] / 255),
    ),
    "rgb with a key": (
        made.png(8, 2, LARGE, (b"tRNS", struct.pack(">HHH", *LARGE[0, 0].tolist()))),
        np.where((LARGE[0, 0] == LARGE).all(axis=-1, keepdims=True), 255, LARGE),
    ),
    "1-bit": (made.png(1, 0, INDEX > 1), grey_to_rgb((INDEX > 1) * 255)),
}


@pytest.mark.parametrize("strip", [2**20, 999])
@pytest.mark.parametrize(("least", "scale"), [((180, 320), 1), ((90, 160), 2), ((45, 80), 4), ((10, 10), 8)])
@pytest.mark.parametrize("kind", REDUCED)
def test_other_formats_are_reduced_to_the_mean_of_their_pixels(
    kind: str, least: Size, scale: int, strip: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwen_shots.reduce.STRIP_PIXELS", strip)
    data, shown = REDUCED[kind]
    frame = decode_frame(made.base64_text(data), FIELD, lambda _: least)
    assert frame.size == (180, 320)
    assert frame.image.size == (-(-320 // scale), -(-180 // scale))
    padded = np.pad(shown.astype(float), ((0, -180 % scale), (0, -320 % scale), (0, 0)), "edge")
    squares = padded.reshape(-(-180 // scale), scale, -(-320 // scale), scale, 3).mean(axis=(1, 3))
    whole = slice(None, 180 // scale), slice(None, 320 // scale)
    assert np.abs(np.asarray(frame.image, float) - squares)[whole].max() <= 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_profile_and_a_turn_count_at_a_reduced_scale_too(kind: str) -> None:
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    data = made.encode(Image.fromarray(LARGE), kind, icc_profile=made.icc_profile(), exif=made.exif(6), **options)
    text = made.base64_text(data)
    whole, halved = decode_frame(text, FIELD), decode_frame(text, FIELD, lambda size: (size[0] // 2, size[1] // 2))
    assert whole.size == halved.size == (320, 180)
    assert halved.image.size == (90, 160)
    assert np.abs(np.asarray(halved.image, float) - np.asarray(whole.image.reduce(2), float)).mean() <= 1


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_at_a_reduced_scale(share: float) -> None:
    data = JPEGS["plain"]
    with pytest.raises(InvalidPicture, match="cut short"):
        decode_frame(made.base64_text(data[: int(len(data) * share)]), FIELD, lambda _: (10, 10))


def test_a_frame_is_fitted_from_the_size_that_was_sent() -> None:
    fit = PictureFit(factor=28, max_tokens=16)
    frame = decode_frame(made.base64_text(JPEGS["plain"]), FIELD, fit.size)
    assert frame.image.size == (160, 90)
    fitted = fit.picture(frame)
    assert fitted.shape[:2] == fit_size(180, 320, factor=28, max_tokens=16)
    whole = fit_picture(decode_picture(made.base64_text(JPEGS["plain"]), FIELD), factor=28, max_tokens=16)
    assert np.abs(fitted.astype(float) - whole).max() <= 4


SIDES = st.integers(16, 8000)


@given(height=SIDES, width=SIDES, factor=st.sampled_from([28, 32]), max_tokens=st.integers(16, 4096))
def test_fit_size_is_qwens(height: int, width: int, factor: int, max_tokens: int) -> None:
    if max(height, width) > 20 * min(height, width):
        return
    mine = fit_size(height, width, factor=factor, max_tokens=max_tokens)
    theirs = smart_resize(height, width, factor, min_pixels=0, max_pixels=max_tokens * factor**2)
    assert mine[0] % factor == mine[1] % factor == 0
    assert factor**2 <= mine[0] * mine[1] <= max_tokens * factor**2
    assert mine[0] < height + factor
    assert mine[1] < width + factor
    if 0 < theirs[0] * theirs[1] <= max_tokens * factor**2:
        assert mine == theirs


def test_fit_picture() -> None:
    picture = made.scene(720, 1280)
    small = fit_picture(picture, factor=28, max_tokens=256)
    assert small.shape == (336, 588, 3)
    expected = Image.fromarray(picture).resize((588, 336), Image.Resampling.BICUBIC)
    assert (small == np.asarray(expected)).all()
    assert fit_picture(small, factor=28, max_tokens=256) is small


@pytest.mark.parametrize(
    ("side", "scans", "fine"), [(64, 80, True), (64, 200, False), (4096, 10, True), (4096, 90, False)]
)
def test_a_jpeg_of_too_many_scans_is_refused_before_they_are_decoded(side: int, scans: int, *, fine: bool) -> None:
    file = io.BytesIO()
    Image.new("L", (side, side), 90).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    last = data.rindex(b"\xff\xda")
    data = data[:last] + data[last:-2] * (scans - data.count(b"\xff\xda") + 1) + data[-2:]
    encoded = base64.b64encode(data).decode()
    if fine:
        assert decode_picture(encoded, "images[0]").shape == (side, side, 3)
        return
    with pytest.raises(InvalidPicture, match="images.0. is a JPEG of too many scans"):
        decode_picture(encoded, "images[0]")


def png_header(width: int, height: int, depth: int, colour: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = (
        (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big") for body in (header, data)
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("size", "depth", "colour", "fine"),
    [
        ((7680, 4320), 8, 2, True), ((7680, 4320), 8, 6, False), ((7680, 4320), 16, 2, False),
        ((4096, 3036), 16, 6, True), ((4096, 3040), 16, 6, False),
        ((7680, 4320), 1, 0, True), ((7680, 4320), 8, 3, True),
    ],
)  # fmt: skip
def test_a_png_is_held_to_the_bytes_that_it_unpacks_to(
    size: tuple[int, int], depth: int, colour: int, *, fine: bool
) -> None:
    # Nothing is in them: what is let through is found to be cut short.
    words = "damaged or cut short" if fine else "a PNG of too many bytes: at most 99,532,800"
    with pytest.raises(InvalidPicture, match=words):
        decode_picture(base64.b64encode(png_header(*size, depth, colour)).decode(), "images[0]")


def test_a_png_with_a_profile_is_held_to_half_of_that() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for options, fine in (({}, True), ({"icc_profile": profile}, False)):
        buffer = io.BytesIO()
        Image.new("RGB", (16_000, 1050)).save(buffer, "PNG", compress_level=1, **options)
        data = buffer.getvalue()
        cut = data[: data.index(b"IDAT") + 100]
        with pytest.raises(InvalidPicture, match="cut short" if fine else "half of that with a colour profile"):
            decode_picture(base64.b64encode(cut).decode(), "images[0]")


def test_a_webp_is_held_to_half_the_pixels() -> None:
    buffer = io.BytesIO()
    Image.new("L", (8160, 2040)).save(buffer, "WEBP", method=0, quality=1)
    with pytest.raises(InvalidPicture, match=r"images\[0\] is a WebP of too many pixels: at most 16,588,800"):
        decode_picture(base64.b64encode(buffer.getvalue()).decode(), "images[0]")


def test_a_progressive_jpeg_is_held_to_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qwen_shots.formats.MAX_PROGRESSIVE_BYTES", 1000)
    for progressive in (False, True):
        buffer = io.BytesIO()
        Image.effect_noise((64, 64), 100).save(buffer, "JPEG", progressive=progressive)
        assert len(buffer.getvalue()) > 1000
        text = base64.b64encode(buffer.getvalue()).decode()
        if not progressive:
            assert decode_picture(text, "images[0]").shape == (64, 64, 3)
            continue
        with pytest.raises(InvalidPicture, match="several scans and more than 24 MiB"):
            decode_picture(text, "images[0]")
