"""The benchmark over HTTP: what it sends is what a film tool sends, and what is not answered is no result."""

from __future__ import annotations

import base64
import http.client
import io
import json
import math

import pytest
from PIL import Image

from benchmarks import film_frames, serving
from benchmarks import http as over_http
from qwen_shots.schemas import Batch, Shot
from tests.helpers import shot


def test_a_film_before_an_engine_of_fixed_cost(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(over_http, "IDLE_SECONDS", 0.3)
    assert over_http.main(["--fixed-cost", "1", "--shots", "12", "--alone", "2"]) == 0
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row[0].strip() for row in rows[2:]] == [
        "12 batches of 10, 8 connections",
        "12 batches of 10, 48 connections",
        "12 batches of 1, 80 connections",
        "2 one shot alone",
    ]
    loops = []
    for row in rows[2:]:
        seconds, rate, _, *waits = (float(cell) for cell in row[1:])
        shots, rounding = int(row[0].split()[0]), 0.051  # seconds have one decimal
        assert shots / (seconds + rounding) - rounding <= rate <= shots / max(0.001, seconds - rounding) + rounding
        assert not any(wait < 0 for wait in waits)  # a round that is over before /health was asked twice has none
        assert waits[4] >= waits[5] >= 0, "the event loop is a part of the server"
        loops.append(waits[5])
    assert max(loops) > 0


def test_the_bodies_are_shots_of_720p() -> None:
    encoded = [
        json.dumps(shot(images=[base64.b64encode(film_frames.as_jpeg(frame)).decode()])).encode()[1:]
        for frame in film_frames.scene_frames("alley")[:2]
    ]
    for body in encoded:
        assert body.startswith(b'"shot_id": 1, ')
    renamed = [b'"images": ' + body.partition(b'"images": ')[2] for body in encoded]
    single = Shot.model_validate_json(b"".join(over_http.single(7, renamed)))
    assert single.shot_id == 7
    batch = Batch.model_validate_json(b"".join(over_http.batch([1, 2, 3], renamed)))
    assert [one.shot_id for one in batch.shots] == [1, 2, 3]
    assert Image.open(io.BytesIO(base64.b64decode(single.images[0]))).size == (1280, 720)


def test_a_shot_that_is_not_answered_is_no_result(live_url: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", int(live_url.rpartition(":")[2]), timeout=60)
    with pytest.raises(RuntimeError, match="answered 422"):
        over_http.send(connection, "/analyze", [b'{"shot_id": 1}'])
    with pytest.raises(RuntimeError, match="answered 200"):
        over_http.send(connection, "/analyze_batch", [b'{"shots": [{"shot_id": 1}]}'])
    connection.close()


def test_a_server_that_does_not_start() -> None:
    with (
        pytest.raises(RuntimeError, match="model.dtype"),
        serving.serving(["server.py"], {"QWEN_SERVER__MODEL__DTYPE": "int4"}),
    ):
        pass


def test_the_rate_in_between_leaves_beginning_and_end_out() -> None:
    """Two connections whose first answers take long; then 100 shots/s, in bursts of 20; then one that has to wait."""
    slow = [over_http.Sent(0.0, 5.0, 10)] * 2
    bursts = [over_http.Sent(5.0 + 0.2 * n, 5.2 + 0.2 * n, 10) for n in range(20) for _ in range(2)]
    last = [over_http.Sent(9.0, 30.0, 10)]
    assert over_http.rate_between([*slow, *bursts, *last], 2) == pytest.approx(100, rel=0.02)


def test_a_film_that_is_over_at_once_has_no_rate_in_between() -> None:
    assert math.isnan(over_http.rate_between([over_http.Sent(0.0, 1.0, 10)] * 8, 8))


def test_percentiles_are_milliseconds() -> None:
    seconds = [number / 1000 for number in range(101)]
    assert over_http.percentile(seconds, 50) == pytest.approx(50)
    assert over_http.percentile(seconds, 99) == pytest.approx(99)
    assert over_http.percentile([0.02], 99) == pytest.approx(20)
