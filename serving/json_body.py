"""JSON bodies, read piece by piece as they come in, at a cost that the limits bound.

A body is mostly pictures: texts of megabytes. They are cut out and never seen by the JSON parser, which gets the few
kilobytes between them. What lies between is counted before any object is made of it, so that a body of millions of
names, values or brackets is refused as soon as it exceeds a limit.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import Any

import jiter

from qwen_shots.errors import InvalidInput

# For each shot that a request may hold. A shot has 20 names and 70 values.
NAMES_A_SHOT = 100
VALUES_A_SHOT = 500
BYTES_A_SHOT = 65_536  # of what is parsed: all but long texts
LIMITS = (
    ("names", NAMES_A_SHOT),
    ("values", VALUES_A_SHOT),
    ("quotation marks", 2 * (NAMES_A_SHOT + VALUES_A_SHOT)),
    ("bytes beside the pictures", BYTES_A_SHOT),
)
MAX_DEPTH = 16  # a batch has 5 levels
SHOT_DEPTH = 3  # of a shot's own braces in {"shots": [{}]}

LONG_TEXT = 4096  # bytes; no text that is allowed is longer, pictures aside

# A text with escapes (PHP writes "\/") is parsed in pieces, for the parser lets no other thread run meanwhile.
PIECE = 2**20
LONGEST_ESCAPE = 12  # a character as a surrogate pair
NO_LETTER = "\N{REPLACEMENT CHARACTER}"

BLANKS = re.compile(rb"[ \t\r\n]{2,}")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # RFC 8259, section 8.1: may be ignored
NOT_JSON = "the body is not valid JSON"
NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class JsonReader:
    """Reads one body.

    Args:
        max_shots: how many a request may hold (`processing.max_batch_size`).
        is_batch: whether the body is `{"shots": [...]}`; then it is refused as soon as there are too many.
    """

    def __init__(self, max_shots: int, *, is_batch: bool) -> None:
        self._max_shots = max_shots
        self._is_batch = is_batch
        self._between = bytearray()  # what is parsed
        self._text = bytearray()  # the text that is being read
        self._in_text = False
        self._in_escape = False  # the text so far ends within an escape
        self._long: dict[str, bytearray] = {}  # placeholder to text
        self._placeholder = secrets.token_hex(8)
        self._names = self._values = self._quotes = self._depth = self._shots = 0
        self._limits = tuple((what, a_shot, a_shot * max_shots) for what, a_shot in LIMITS)

    def feed(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises:
            InvalidInput: the body exceeds a limit; the detail names it.
        """
        at = 0
        while (quote := piece.find(b'"', at)) >= 0:
            self._take(piece[at:quote])
            self._quotes += 1
            if not self._in_text:
                self._in_text = True
            elif self._in_escape:
                self._text += b'"'
                self._in_escape = False
            else:
                self._end_text()
            self._check()
            at = quote + 1
        self._take(piece[at:])
        if self._is_batch and self._shots > self._max_shots:
            raise InvalidInput(too_many_shots(f"at least {self._shots}", self._max_shots))

    def finish(self) -> Any:
        """Parse what was read.

        Raises:
            InvalidInput: it is not JSON, or an object holds a name twice.
        """
        if self._in_text:
            raise InvalidInput(NOT_JSON)
        try:
            # NaN is let through here: the fields' own checks name the one that is not finite.
            value = jiter.from_json(
                bytes(self._between).removeprefix(BYTE_ORDER_MARK),
                allow_inf_nan=True,
                catch_duplicate_keys=True,
                cache_mode="none",
            )
            return self._with_long_texts(value)
        except ValueError as error:
            if str(error).startswith("Detected duplicate key"):
                raise InvalidInput("an object in the body holds the same name twice") from None
            raise InvalidInput(NOT_JSON) from None

    def _take(self, part: bytes) -> None:
        """Bytes without a quotation mark: of a text, or between texts."""
        if self._in_text:
            self._text += part
            backslashes = len(part) - len(part.rstrip(b"\\"))
            begins_escaped = self._in_escape and backslashes == len(part)
            self._in_escape = (backslashes + begins_escaped) % 2 == 1
            return
        self._between += BLANKS.sub(b" ", part)
        self._names += part.count(b":")
        self._values += part.count(b",") + part.count(b"[") + part.count(b"{")
        self._check()
        self._follow_brackets(part)

    def _follow_brackets(self, part: bytes) -> None:
        for bracket in part.translate(None, NO_BRACKETS):
            if bracket in b"]}":
                self._depth -= 1
                continue
            self._depth += 1
            self._shots += bracket == ord("{") and self._depth == SHOT_DEPTH
            if self._depth > MAX_DEPTH:
                raise InvalidInput(f"the JSON of the body is nested too deeply: at most {MAX_DEPTH} levels are allowed")

    def _end_text(self) -> None:
        text, self._text, self._in_text = self._text, bytearray(), False
        if len(text) > LONG_TEXT:
            placeholder = f"{self._placeholder}{len(self._long)}"
            self._long[placeholder] = text
            self._between += b'"%s"' % placeholder.encode()
        else:
            self._between += b'"%s"' % text

    def _check(self) -> None:
        counts = (self._names, self._values, self._quotes, len(self._between))
        for count, (what, a_shot, most) in zip(counts, self._limits, strict=True):
            if count > most:
                raise InvalidInput(
                    f"the JSON of the body holds too many {what}: at most {most:,} are allowed, "
                    f"{a_shot:,} for each shot of processing.max_batch_size"
                )

    def _with_long_texts(self, value: Any) -> Any:
        """The parsed value with the texts that were cut out."""
        if isinstance(value, str):
            long = self._long.pop(value, None)
            return value if long is None else _decoded(long)
        if isinstance(value, list):
            return [self._with_long_texts(item) for item in value]
        if isinstance(value, dict):
            return {name: self._with_long_texts(item) for name, item in value.items()}
        return value


def too_many_shots(sent: str, allowed: int) -> str:
    """Why a batch is refused."""
    return f"shots: {sent} were sent; 1 to {allowed} are allowed in one request (processing.max_batch_size)"


def _decoded(text: bytearray) -> str:
    """A long text without its escapes.

    One that holds more than ASCII, or escapes only, is not a picture, and nothing else may be so long: only its
    beginning is kept, which is refused for the same reasons. The whole could take four times its bytes.

    Raises:
        ValueError: an escape is not one of JSON's.
    """
    if text.isascii():
        if b"\\" not in text:
            return text.decode("ascii")
        pieces = list(_unescaped(text))
        if all(map(str.isascii, pieces)):
            return "".join(pieces)
    return text[:LONG_TEXT].decode(errors="replace") + NO_LETTER


def _unescaped(text: bytearray) -> Iterator[str]:
    """The text in pieces; the last one is one that holds more than ASCII, if any does."""
    at, is_ascii = 0, True
    while at < len(text) and is_ascii:
        end = _outside_escapes(text, at + PIECE) if at + PIECE < len(text) else len(text)
        piece: str = jiter.from_json(b'"%s"' % text[at:end], cache_mode="none") if end else NO_LETTER
        is_ascii = piece.isascii()
        yield piece
        at = end


def _outside_escapes(text: bytearray, end: int) -> int:
    """The last place up to `end` with no backslash shortly before it; 0 for a text that is all escapes."""
    first = end - PIECE // 2
    while (backslash := text.rfind(b"\\", end - LONGEST_ESCAPE, end)) >= 0:
        end = backslash
        if end < first:
            return 0
    return end
