"""A body is read as JSON says, in whatever pieces it comes, and costs no more than the limits allow."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_shots.errors import InvalidInput
from qwen_shots.schemas import MAX_ID_LENGTH
from serving.json_body import LONG_TEXT, MAX_DEPTH, NAMES_A_SHOT, PIECE, VALUES_A_SHOT, JsonReader

MIB = 2**20
SHOTS = 10


def read(body: bytes, piece: int = 65_536, *, is_batch: bool = True) -> Any:
    reader = JsonReader(SHOTS, is_batch=is_batch)
    for at in range(0, len(body), piece):
        reader.feed(body[at : at + piece])
    return reader.finish()


def refusal(body: bytes) -> str:
    with pytest.raises(InvalidInput) as caught:
        read(body)
    return caught.value.detail


letters = st.text(st.sampled_from('aZ09+/=\\"/\n\t,:[]{} é🎬\x00'), max_size=30)
long_letters = st.builds(lambda text: text * 400, st.text(st.sampled_from("aZ+/="), min_size=11, max_size=20))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | letters | long_letters,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(letters, inner, max_size=4),
    max_leaves=12,
)


@given(value=values, piece=st.integers(1, 40), ascii_only=st.booleans(), indent=st.sampled_from([None, 3]))
def test_it_reads_what_python_reads(value: Any, piece: int, indent: int | None, *, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert read(body, piece, is_batch=False) == value


@pytest.mark.parametrize(
    "written",
    [lambda text: text.replace("/", "\\/"), lambda text: text.replace("+", "\\u002B"), lambda text: text],
    ids=["PHP", ".NET", "plain"],
)
def test_pictures_as_encoders_write_them(written: Any) -> None:
    picture = "iVBORw0KGgo+/abcd" * 200_000 + "=="  # several pieces
    assert len(picture) > 3 * PIECE
    assert read(f'{{"images": ["{written(picture)}"]}}'.encode()) == {"images": [picture]}


def test_blanks_cost_next_to_nothing() -> None:
    assert read(b"{" + b" \n\t" * (8 * MIB) + b'"a": 1}' + b"\r\n" * MIB) == {"a": 1}
    assert refusal(b'{"a": 1' + b" " * 70_000 + b"2}") == "the body is not valid JSON"


def test_a_byte_order_mark_is_ignored() -> None:
    assert read(b'\xef\xbb\xbf{"a": 1}', 1) == {"a": 1}
    assert refusal(b'{"a": \xef\xbb\xbf1}') == "the body is not valid JSON"


@pytest.mark.parametrize(
    "long", ["é" * LONG_TEXT, "A" * MIB + "\\ud83d\\ude00", "\\u0041" * MIB], ids=["letters", "one", "all"]
)
def test_a_long_text_that_is_no_picture_is_still_a_text_that_is_none(long: str) -> None:
    (text,) = read(f'["{long}"]'.encode(), is_batch=False)
    assert len(text) > MAX_ID_LENGTH
    assert not text.isascii()


@pytest.mark.parametrize("broken", ['"' + "A" * 5000, '["' + "A" * 5000 + "\\x" + '"]', '["a\\"]', '"\\'])
def test_a_broken_text(broken: str) -> None:
    assert refusal(broken.encode()) == "the body is not valid JSON"


def repeated(before: bytes, part: bytes, after: bytes) -> bytes:
    return before + part * (24 * MIB // len(part)) + after


def members(count: int, name: bytes) -> bytes:
    return b"{" + b",".join(b'"%b%d":1' % (name, number) for number in range(count)) + b"}"


COSTLY = {
    "names": (members(2_000_000, b""), f"names: at most {NAMES_A_SHOT * SHOTS:,}"),
    "long names": (members(2000, b"a" * 5000), "names: at most"),
    "lists": (repeated(b"[", b"[],", b"[]]"), f"values: at most {VALUES_A_SHOT * SHOTS:,}"),
    "objects": (repeated(b"[", b"{},", b"{}]"), "values: at most"),
    "numbers": (repeated(b"[", b"1,", b"1]"), "values: at most"),
    "empty texts": (repeated(b"[", b'"",', b'""]'), "values: at most"),
    "texts side by side": (repeated(b"[", b'""', b"]"), "quotation marks: at most"),
    "escaped quotation marks": (repeated(b'"', b'\\"', b'"'), "quotation marks: at most"),
    "depth": (b"[" * (MAX_DEPTH + 1), f"too deeply: at most {MAX_DEPTH} levels"),
    "digits": (repeated(b"", b"1", b""), "beside the pictures: at most 655,360"),
    "blanks between digits": (repeated(b"", b"1 ", b""), "beside the pictures: at most"),
}  # fmt: skip


@pytest.mark.parametrize("kind", COSTLY)
def test_what_costs_more_than_its_size_is_refused_before_it_is_read(kind: str) -> None:
    body, words = COSTLY[kind]
    reader = JsonReader(SHOTS, is_batch=True)
    fed = 0

    def pieces() -> Iterator[bytes]:
        nonlocal fed
        for at in range(0, len(body), 65_536):
            fed = at
            yield body[at : at + 65_536]

    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(InvalidInput, match=words):
            for piece in pieces():
                reader.feed(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert fed < 12 * MIB
    assert peak < 32 * MIB
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "text",
    [
        b"A" * 24 * MIB,
        b"A" * 24 * MIB + "🎬".encode(),
        b"A" * 24 * MIB + b"\\ud83d\\ude00",
        (b"A" * 62 + b"\\/") * (24 * MIB // 64),
        b"\\u002B" * (4 * MIB),
        b"\\\\" * (12 * MIB),
    ],
    ids=["a picture", "one wide letter", "one wide escape", "PHP", "escapes", "backslashes"],
)
def test_a_long_text_costs_less_than_four_times_its_size(text: bytes) -> None:
    body = b'["' + text + b'"]'
    tracemalloc.start()
    began = time.process_time()
    try:
        read(body, is_batch=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(body)
    assert time.process_time() - began < 1


@pytest.mark.parametrize("sent", [11, 16])
def test_a_batch_of_too_many_is_refused_before_its_last_pictures_come(sent: int) -> None:
    shot = b'{"shot_id": %d, "images": ["' + b"A" * 100_000 + b'"], "audio_features": {"mfcc_mean": [1]}}'
    pieces = [b'{"shots": [', *(shot % number + b"," for number in range(sent))]
    reader = JsonReader(SHOTS, is_batch=True)
    for piece in pieces[: SHOTS + 1]:
        reader.feed(piece)
    with pytest.raises(InvalidInput) as caught:
        reader.feed(pieces[SHOTS + 1])
    assert caught.value.detail == (
        "shots: at least 11 were sent; 1 to 10 are allowed in one request (processing.max_batch_size)"
    )
