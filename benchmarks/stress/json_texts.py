# ruff: noqa: E501 - tables
"""JSON texts that must be refused, and those of a folder: nst/JSONTestSuite's `test_parsing`, by its names.

There `n_` must be refused, `y_` is JSON, and of `i_` either is right.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks.stress.bars import Bar, none_of
from benchmarks.stress.raw import exchange, post
from benchmarks.stress.target import target

REFUSED: tuple[bytes, ...] = (
    b"", b" ", b"{", b"}", b"[", b"]", b"[1", b"[1,]", b"[,1]", b"[1,,2]", b"[1 2]", b"{1:2}", b"{'a':1}", b'{"a"}', b'{"a":}',
    b'{"a":1,}', b'{"a":1 "b":2}', b'{"a":1}}', b"[1]]", b'"a', b"'a'", b'"\\x"', b'"\\u12"', b'"\\u{1}"', b'"\t"', b'"\n"',
    b'"\x00"', b'"\xff"', b'"\xc0\xaf"', b'"\xed\xa0\x80"', b"01", b"-", b"-01", b"+1", b"1.", b".5", b"1e", b"1e+", b"0x1",
    b"1_000", b"tru", b"True", b"NULL", b"nan", b"infinity", b"undefined", b"1 1", b"{} {}", b"/* */ 1", b"1 // 1", b"\xef\xbb\xbf",
    b"\xff\xfe[\x001\x00", b"\x00", b"[\x00]", b"[" * 100_000, b'{"a":' * 50_000, b'["a\\', b'["\\ud800\\"]', b"<json/>",
)  # fmt: skip
REFUSAL = {400, 413, 422}
# Let through by the parser, so that the field's own check can name the number that is not finite.
REFUSED_LATER = {"n_number_NaN.json", "n_number_infinity.json", "n_number_minus_infinity.json"}


def check(folders: list[Path]) -> list[Bar]:
    """Send our own texts, and all files of the folders; every answer is a refusal, for none of them is a shot."""
    with target({}) as server:
        told = [(text, *asyncio.run(_detail(server.port, text))) for text in REFUSED]
        wrong = [f"{text[:20]!r}: {status}" for text, status, detail in told if not _is_refused(status, detail, "JSON")]
        bars = [none_of(f"{len(REFUSED)} texts that are no JSON", "other answer than the refusal of the text", wrong)]
        for folder in folders:
            files = sorted(folder.glob("[iny]_*.json"))
            wrong = []
            for file in files:
                status, detail = asyncio.run(_detail(server.port, file.read_bytes()))
                must = "JSON" if file.name[0] == "n" and file.name not in REFUSED_LATER else ""
                if not _is_refused(status, detail, must) or (file.name[0] == "y" and "not valid JSON" in detail):
                    wrong.append(f"{file.name}: {status} {detail}")
            bars.append(none_of(f"JSONTestSuite, {len(files)} files", "n_ taken, y_ called no JSON, or 5xx", wrong))
    return bars


async def _detail(port: int, text: bytes) -> tuple[int, str]:
    answer = await exchange(port, post("/analyze", text))
    return answer.status, answer.body.decode(errors="replace")


def _is_refused(status: int, detail: str, must: str) -> bool:
    return status in REFUSAL and must in detail
