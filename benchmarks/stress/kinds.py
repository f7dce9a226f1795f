# ruff: noqa: E501 - tables
"""Forty and more kinds of requests that are wrong, each with something new in it every time."""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.stress.raw import JSON_LINE, KEY_LINE, post, post_json

Make = Callable[[random.Random], bytes]
WRONG_VALUES: tuple[Any, ...] = (
    None, True, -1, 1e308, 10**400, "", "x" * 5000, [], {}, [[]], {"a": {}}, [None] * 50, "\ud800", -0.0, 2**63,
)  # fmt: skip
HEAD = f"POST /analyze HTTP/1.1\r\nHost: localhost\r\n{KEY_LINE}{JSON_LINE}"


def picture(chance: random.Random, kind: str = "JPEG") -> bytes:
    """A small good picture."""
    pixels = np.frombuffer(chance.randbytes(48 * 32 * 3), np.uint8).reshape(32, 48, 3)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def shot(*images: bytes) -> dict[str, Any]:
    """A shot of these files."""
    texts = [base64.b64encode(image).decode() for image in images]
    return {"shot_id": 1, "images": texts, "start_time": 0, "end_time": 1, "duration": 1}


def png(width: int, height: int, data: bytes, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG that says it is so large, whatever it holds."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _with(lines: str, body: bytes = b"") -> bytes:
    return f"POST /analyze HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode("latin-1") + body


def _changed(chance: random.Random) -> bytes:
    good = shot(picture(chance)) | {"audio_features": {"tempo": 1.0, "mfcc_mean": [0.0] * 13}}
    holder = chance.choice([good, good["audio_features"]])
    holder[chance.choice([*holder, "no_such_field"])] = chance.choice(WRONG_VALUES)
    good["duration"] = "long"  # wrong in any case
    return post_json("/analyze", good)


def _nested(chance: random.Random) -> bytes:
    depth = chance.randrange(100, 100_000)
    opening, closing = chance.choice([("[", "]"), ('{"a":', "}")])
    return post("/analyze", f"{opening * depth}1{closing * depth}".encode())


def _truncated(chance: random.Random) -> bytes:
    data = picture(chance, chance.choice(["JPEG", "PNG", "WEBP"]))
    return post_json("/analyze", shot(data[: chance.randrange(1, len(data) // 2)]))


def _flipped(chance: random.Random) -> bytes:
    data = bytearray(picture(chance, chance.choice(["JPEG", "PNG", "WEBP"])))
    for _ in range(chance.randrange(1, 50)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    data[:4] = b"none"
    return post_json("/analyze", shot(bytes(data)))


def _half_json(chance: random.Random) -> bytes:
    text = json.dumps(shot(picture(chance))).encode()
    return post("/analyze", text[: chance.randrange(1, len(text) - 1)])


# Name to what makes one; none of them is a request that could be served.
KINDS: dict[str, Make] = {
    "random bytes": lambda c: c.randbytes(c.randrange(1, 2000)) + b"\r\n\r\n",
    "a TLS greeting": lambda c: b"\x16\x03\x01" + c.randbytes(200) + b"\r\n\r\n",
    "an empty request line": lambda _: b"\r\n \r\n\r\n",
    "another version of HTTP": lambda c: f"GET / HTTP/{c.randrange(2, 99)}.7\r\nHost: localhost\r\n\r\n".encode(),
    "a header without a colon": lambda _: _with("nonsense\r\n"),
    "a NUL in a header": lambda _: _with("X-A: a\0b\r\n"),
    "a header of 70 kB": lambda c: _with(f"X-A: {'a' * c.randrange(70_000, 90_000)}\r\n"),
    "a path of 70 kB": lambda c: f"GET /{'a' * c.randrange(70_000, 90_000)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
    "3,000 headers": lambda _: _with("".join(f"X-{n}: {'a' * 30}\r\n" for n in range(3000))),
    "a folded header": lambda _: _with("X-A: a\r\n b\r\n" + KEY_LINE + "Content-Length: 1\r\n", b"x"),
    "a negative length": lambda _: _with(KEY_LINE + "Content-Length: -5\r\n"),
    "a length in words": lambda _: _with(KEY_LINE + "Content-Length: many\r\n"),
    "two lengths": lambda _: _with(KEY_LINE + "Content-Length: 2\r\nContent-Length: 3\r\n", b"{}x"),
    "a length and chunks": lambda _: _with(
        KEY_LINE + JSON_LINE + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", b"2\r\n{}\r\n0\r\n\r\n"
    ),
    "a chunk of a wrong size": lambda c: _with(
        KEY_LINE + JSON_LINE + "Transfer-Encoding: chunked\r\n", b"zz" + c.randbytes(20) + b"\r\n"
    ),
    "a body that ends early": lambda c: _with(KEY_LINE + JSON_LINE + f"Content-Length: {c.randrange(10, 999)}\r\n", b"{"),
    "chunks that end early": lambda _: _with(KEY_LINE + JSON_LINE + "Transfer-Encoding: chunked\r\n", b"5\r\n{"),
    "an unknown encoding of the transfer": lambda _: _with(KEY_LINE + "Transfer-Encoding: zip\r\n", b"{}"),
    "no host": lambda _: b"GET /metrics HTTP/1.1\r\n" + KEY_LINE.encode() + b"\r\n",
    "two hosts": lambda _: _with("Host: there\r\n" + KEY_LINE),
    "an unknown method": lambda c: f"{c.choice(['BREW', 'get', 'TRACE', 'CONNECT'])} /analyze HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
    "a doubled slash": lambda c: post("/" * c.randrange(2, 9) + "analyze", b"{}", JSON_LINE),
    "an encoded path": lambda c: post(c.choice(["/%61nalyze", "/analyze%00", "/analyze%2f", "/%2e/analyze"]), b"{}", JSON_LINE),
    "a path that climbs": lambda c: post(c.choice(["/health/../metrics", "/static/../server.py", "/..;/metrics"]), b"{}", JSON_LINE),
    "another server's address": lambda _: b"GET http://there/metrics HTTP/1.1\r\nHost: there\r\n\r\n",
    "no key": lambda _: post("/analyze", b"{}", JSON_LINE),
    "a wrong key": lambda c: post("/analyze", b"{}", f"Authorization: Bearer {c.randbytes(20).hex()}\r\n{JSON_LINE}"),
    "two keys": lambda _: post("/analyze", b"{}", KEY_LINE + KEY_LINE + JSON_LINE),
    "another type of content": lambda c: post(
        "/analyze", b"{}", KEY_LINE + f"Content-Type: {c.choice(['text/plain', 'application/xml', 'multipart/form-data', 'a'])}\r\n"
    ),
    "no type of content": lambda _: post("/analyze", b"{}", KEY_LINE),
    "an empty body": lambda _: post("/analyze", b""),
    "random bytes as JSON": lambda c: post("/analyze", c.randbytes(c.randrange(1, 3000))),
    "JSON in UTF-16": lambda _: post("/analyze", json.dumps({"shot_id": 1}).encode("utf-16")),
    "half of a JSON text": _half_json,
    "deep nesting": _nested,
    "a name twice": lambda c: post("/analyze", b'{"shot_id": 1, ' + json.dumps(shot(picture(c))).encode()[1:]),
    "NaN and infinity": lambda c: post("/analyze", json.dumps(shot(picture(c)) | {"duration": c.choice([float("nan"), float("inf")])}).encode()),
    "half a surrogate pair": lambda c: post_json("/analyze", shot(picture(c)) | {"shot_id": "a\ud800"}),
    "huge numbers": lambda c: post("/analyze", b'{"start_time": ' + c.choice([b"1e999", b"9" * 5000, b"-1e400"]) + b"}"),
    "a field of a wrong type": _changed,
    "too many pictures": lambda c: post_json("/analyze", shot(*[picture(c)] * 11)),
    "broken base64": lambda c: post_json("/analyze", shot() | {"images": [c.choice(["a", "====", "\u00e9", "data:,x", "a\nb"])]}),
    "no picture": lambda c: post_json("/analyze", shot(c.choice([b"GIF89a", b"%PDF", b"BM", b"<svg>"]) + c.randbytes(300))),
    "a picture cut short": _truncated,
    "a picture of another format within": _flipped,
    "a PNG that says it is huge": lambda c: post_json("/analyze", shot(png(c.randrange(20_000, 2**31), 60_000, b"x"))),
    "a PNG whose data is none": lambda c: post_json("/analyze", shot(png(640, 480, c.randbytes(200)))),
    "a PNG that unpacks to too much": lambda _: post_json("/analyze", shot(png(20, 400_001, zlib.compress(bytes(8_000_000))))),
    "nonsense as a parameter": lambda c: post("/analyze?explain=" + c.randbytes(4).hex() + "z", b"{}"),
    "an empty batch": lambda _: post_json("/analyze_batch", {"shots": []}),
    "twins in a batch": lambda c: post_json("/analyze_batch", {"shots": [shot(picture(c))] * 2}),
    "a batch that is none": lambda c: post_json("/analyze_batch", {"shots": c.choice(WRONG_VALUES[:9]) or 0, "x": 1}),
}  # fmt: skip
