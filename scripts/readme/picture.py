"""Draws a shot and its answer as one picture: the frames, the caption, and a bar a score."""

from __future__ import annotations

import base64
import textwrap
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from PIL import Image, ImageDraw, ImageFont

FRAME_WIDTH = 232
GAP = 10
MARGIN = 20
ROW = 30
NAME_WIDTH = 190
BAR = (310, 14)  # width at score 1, height
COLUMNS = 2
TEXT_SIZE, CAPTION_SIZE, SMALL_SIZE = 17, 23, 13
CAPTION_LETTERS = 100  # a line

PAPER, INK, PALE, FAINT, COLOUR = "#ffffff", "#1f2328", "#e6e9ec", "#68707a", "#2f6fb2"


def draw(images: Sequence[str], answer: Mapping[str, Any], credit: str) -> Image.Image:
    """Draw one shot.

    Args:
        images: the frames in base64, all of one size.
        answer: what the server said, with `caption` and `attributes`.
        credit: whose frames these are.
    """
    frames = [_scaled(Image.open(BytesIO(base64.b64decode(image))).convert("RGB")) for image in images]
    caption = textwrap.wrap(answer["caption"], CAPTION_LETTERS) or ["(no caption)"]
    scores = list(answer["attributes"].items())
    rows = -(-len(scores) // COLUMNS)
    width = 2 * MARGIN + len(frames) * FRAME_WIDTH + (len(frames) - 1) * GAP
    top = MARGIN + frames[0].height + GAP
    height = top + len(caption) * ROW + GAP + rows * ROW + GAP + SMALL_SIZE + MARGIN
    picture = Image.new("RGB", (width, height), PAPER)
    for number, frame in enumerate(frames):
        picture.paste(frame, (MARGIN + number * (FRAME_WIDTH + GAP), MARGIN))
    pen = ImageDraw.Draw(picture)
    for number, line in enumerate(caption):
        pen.text((MARGIN, top + number * ROW), line, INK, _font(CAPTION_SIZE))
    top += len(caption) * ROW + GAP
    for number, (name, score) in enumerate(scores):
        column, row = divmod(number, rows)
        _draw_score(pen, (MARGIN + column * (width // COLUMNS), top + row * ROW), name, score)
    pen.text((MARGIN, height - MARGIN - SMALL_SIZE), credit, FAINT, _font(SMALL_SIZE))
    return picture


def _scaled(frame: Image.Image) -> Image.Image:
    return frame.resize((FRAME_WIDTH, round(frame.height * FRAME_WIDTH / frame.width)), Image.Resampling.LANCZOS)


def _draw_score(pen: ImageDraw.ImageDraw, at: tuple[int, int], name: str, score: float) -> None:
    x, y = at
    pen.text((x, y), name.replace("_", " "), INK, _font(TEXT_SIZE))
    left, middle = x + NAME_WIDTH, y + TEXT_SIZE // 2 + 2
    box = (left, middle - BAR[1] // 2, left + BAR[0], middle + BAR[1] // 2)
    pen.rectangle(box, PALE)
    if score > 0:
        pen.rectangle((*box[:2], left + round(BAR[0] * score), box[3]), COLOUR)
    pen.text((box[2] + GAP, y), f"{score:.2f}", INK, _font(TEXT_SIZE))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)  # Pillow's own, so that the picture is the same everywhere
