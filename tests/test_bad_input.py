"""Bad input, each kind with its status and problem body; a bad shot in a batch costs no other."""

from __future__ import annotations

import base64
import gzip
import io
import json
import math
import struct
import zlib
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.testclient import TestClient

from tests.helpers import assert_problem, encode, scene, shot

JSON = {"Content-Type": "application/json"}
GOOD_FRAME = encode(scene(1))

# Stands in what is sent; no answer may repeat it.
SECRET = "sesame"


def without(field: str) -> dict[str, Any]:
    return {name: value for name, value in shot(1).items() if name != field}


def with_frame(frame: str) -> dict[str, Any]:
    return shot(1, images=[GOOD_FRAME, frame])


def png_that_claims(width: int, height: int) -> str:
    """A small PNG whose header says another size."""
    data = bytearray(base64.b64decode(encode(scene(1), "PNG")))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return base64.b64encode(data).decode()


def animated(kind: str) -> str:
    file = io.BytesIO()
    first, second = (Image.fromarray(scene(seed)) for seed in (1, 2))
    first.save(file, kind, save_all=True, append_images=[second], duration=40)
    return base64.b64encode(file.getvalue()).decode()


# What is wrong: the body, and the words that the detail must have (the field, and the limit where there is one).
BAD_SHOTS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "missing field": (without("images"), ("images", "missing")),
    "missing time": (without("end_time"), ("end_time", "missing")),
    "unknown field": (shot(1) | {SECRET: "x"}, ("unknown field", "shot_id, images")),
    "unknown audio field": (shot(1, audio_features={SECRET: 1.0}), ("audio_features", "unknown field")),
    "text for a number": (shot(1, start_time=SECRET), ("start_time", "number")),
    "a truth value for a name": (shot(1) | {"shot_id": True}, ("shot_id",)),
    "an endless name": (shot(1) | {"shot_id": SECRET * 50}, ("shot_id", "256")),
    "infinite time": (shot(1, end_time=math.inf), ("end_time", "finite")),
    "not a number": (shot(1, audio_features={"tempo": math.nan}), ("audio_features.tempo", "finite")),
    "negative time": (shot(1, start_time=-1.0), ("start_time", "0")),
    "no images": (shot(1, images=[]), ("images", "at least 1")),
    "11 images": (shot(1, images=[GOOD_FRAME] * 11), ("images", "at most 10")),
    "12 coefficients": (shot(1, audio_features={"mfcc_mean": [0.0] * 12}), ("mfcc_mean", "at least 13")),
    "not base64": (with_frame(f"*{SECRET}*"), ("images[1]", "base64")),
    "a data URL": (with_frame(f"data:image/jpeg;base64,{GOOD_FRAME}"), ("images[1]", "data: URL")),
    "an address": (with_frame(f"http://localhost/{SECRET}.jpg"), ("images[1]", "base64")),
    "not a picture": (with_frame(base64.b64encode(SECRET.encode()).decode()), ("images[1]", "JPEG, PNG or WebP")),
    "truncated JPEG": (with_frame(GOOD_FRAME[: len(GOOD_FRAME) // 8 * 4]), ("images[1]", "cut short")),
    "animated PNG": (with_frame(animated("PNG")), ("images[1]", "animated")),
    "animated WebP": (with_frame(animated("WEBP")), ("images[1]", "animated")),
    "1x1": (with_frame(encode(scene(1, 1, 1), "PNG")), ("images[1]", "16 pixels")),
    "30,000x30,000": (with_frame(png_that_claims(30_000, 30_000)), ("images[1]", "7680 x 4320")),
    "200:1": (with_frame(encode(scene(1, 16, 3200), "PNG")), ("images[1]", "20 times")),
    "end before start": (shot(1, start_time=5.0, end_time=4.0), ("end_time", "start_time")),
    "a list": ([], ("object",)),
    "null": (None, ("object",)),
}


@pytest.mark.parametrize(("body", "words"), BAD_SHOTS.values(), ids=BAD_SHOTS)
def test_bad_shot(client: TestClient, body: Any, words: tuple[str, ...]) -> None:
    answer = client.post("/analyze", content=json.dumps(body), headers=JSON)
    assert_problem(answer, 422, *words)
    assert SECRET not in answer.text
    # The same shot in a batch is an error row, not an error of the batch.
    rows = client.post("/analyze_batch", content=json.dumps({"shots": [body]}), headers=JSON)
    assert rows.status_code == 200
    assert rows.json()["results"] == []
    (row,) = rows.json()["errors"]
    assert row["index"] == 0
    assert {name: row[name] for name in ("type", "title", "detail")} == {
        name: answer.json()[name] for name in ("type", "title", "detail")
    }


@pytest.mark.parametrize(
    "body",
    ["", "{", "sesame", '{"shot_id": "\\ud800"}', b'\xff{"shot_id": 1}'],
    ids=["empty", "cut", "a word", "half a surrogate", "not UTF-8"],
)
def test_not_json(client: TestClient, body: str | bytes) -> None:
    answer = client.post("/analyze", content=body, headers=JSON)
    assert_problem(answer, 422, "not valid JSON")
    assert SECRET not in answer.text


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        ("[" * 1000, "nested too deeply: at most 16 levels"),
        ("[" + "[]," * 100_000 + "[]]", "values: at most 5,000 are allowed, 500 for each shot"),
        ("{" + ",".join(f'"{name}": 1' for name in range(100_000)) + "}", "names: at most 1,000"),
    ],
    ids=["deep", "values", "names"],
)
def test_more_than_a_shot_can_need(client: TestClient, body: str, limit: str) -> None:
    assert_problem(client.post("/analyze", content=body, headers=JSON), 422, limit)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "sesame", "identity, gzip"])
def test_a_compressed_body(client: TestClient, coding: str) -> None:
    answer = client.post("/analyze", content=gzip.compress(b"{}"), headers=JSON | {"Content-Encoding": coding})
    assert_problem(answer, 415, "Content-Encoding")
    assert answer.headers["accept-encoding"] == "identity"
    assert SECRET not in answer.text


@pytest.mark.parametrize("coding", ["identity", "Identity"])
def test_a_body_that_says_that_it_is_not_compressed(client: TestClient, coding: str) -> None:
    assert client.post("/analyze", json=shot(1), headers={"Content-Encoding": coding}).status_code == 200


def test_a_byte_order_mark(client: TestClient) -> None:
    body = b"\xef\xbb\xbf" + json.dumps(shot(1)).encode()
    assert client.post("/analyze", content=body, headers=JSON).status_code == 200


def test_a_name_that_stands_twice(client: TestClient) -> None:
    body = json.dumps(shot(1))[:-1] + ', "shot_id": 2}'
    assert_problem(client.post("/analyze", content=body, headers=JSON), 422, "twice")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "sesame", ""])
def test_another_content_type(client: TestClient, kind: str) -> None:
    answer = client.post("/analyze", content=json.dumps(shot(1)), headers={"Content-Type": kind})
    assert_problem(answer, 415, "Content-Type: application/json")
    assert SECRET not in answer.text


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "application/json;x=y"])
def test_json_by_any_spelling(client: TestClient, kind: str) -> None:
    assert client.post("/analyze", content=json.dumps(shot(1)), headers={"Content-Type": kind}).status_code == 200


def test_no_content_type(client: TestClient) -> None:
    assert_problem(client.post("/analyze", content="{}"), 415, "Content-Type")


@pytest.mark.parametrize("count", [0, 11])
def test_batch_size(client: TestClient, count: int) -> None:
    shots = [shot(number, images=["x"]) for number in range(count)]
    assert_problem(client.post("/analyze_batch", json={"shots": shots}), 422, f"{count} were sent", "1 to 10")


def test_batch_of_twins(client: TestClient) -> None:
    answer = client.post("/analyze_batch", json={"shots": [shot(1), shot(SECRET), shot(SECRET)]})
    assert_problem(answer, 422, "shots[2].shot_id", "shots[1]")
    assert SECRET not in answer.text


@pytest.mark.parametrize("body", [[], {}, None, {"shots": None}, {"shots": [], "more": 1}, {"shots": {}}])
def test_batch_of_another_shape(client: TestClient, body: Any) -> None:
    assert_problem(client.post("/analyze_batch", content=json.dumps(body), headers=JSON), 422, '{"shots": [...]}')


def test_a_query_that_is_neither_true_nor_false(client: TestClient) -> None:
    answer = client.post(f"/analyze?explain={SECRET}", json=shot(1))
    assert_problem(answer, 422, "explain", "true or false")
    assert SECRET not in answer.text


def test_one_bad_shot_costs_no_other(live: httpx.Client) -> None:
    shots = [shot(number) for number in range(4)]
    clean = live.post("/analyze_batch", json={"shots": shots}).json()
    assert [row["shot_id"] for row in clean["results"]] == list(range(4))
    assert clean["errors"] == []
    for bad in range(4):
        broken = [*shots[:bad], shot(bad, images=["!"]), *shots[bad + 1 :]]
        answer = live.post("/analyze_batch", json={"shots": broken}).json()
        assert [row["shot_id"] for row in answer["results"]] == [n for n in range(4) if n != bad]
        assert [(row["index"], row["shot_id"]) for row in answer["errors"]] == [(bad, bad)]
        for row, reference in zip(answer["results"], clean["results"][:bad] + clean["results"][bad + 1 :], strict=True):
            assert row["caption"] == reference["caption"]
            assert row["attributes"] == pytest.approx(reference["attributes"], abs=1e-4)


@pytest.mark.parametrize("lines", [["identity", "gzip"], ["", "br"], ["identity, gzip"]])
def test_every_content_encoding_counts(client: TestClient, lines: list[str]) -> None:
    headers = [*JSON.items(), *(("Content-Encoding", line) for line in lines)]
    assert_problem(client.post("/analyze", content=b"{}", headers=headers), 415, "Content-Encoding")


@pytest.mark.parametrize("lines", [[""], ["identity", "identity"], ["identity, identity"]])
def test_no_content_encoding_in_other_words(client: TestClient, lines: list[str]) -> None:
    headers = [*JSON.items(), *(("Content-Encoding", line) for line in lines)]
    assert client.post("/analyze", content=json.dumps(shot(1)), headers=headers).status_code == 200


def test_a_second_content_type_counts(client: TestClient) -> None:
    headers = [*JSON.items(), ("Content-Type", "text/plain")]
    assert_problem(client.post("/analyze", content=json.dumps(shot(1)), headers=headers), 415, "Content-Type")
