"""README.md's curl commands, run as they stand there against a real server of the bundled checkpoint."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qwen_shots.schemas import Shot
from scripts.readme import examples, report
from scripts.readme.__main__ import PICTURE, bundled_model
from scripts.readme.picture import draw
from scripts.readme.sample import REQUEST
from tests.helpers import BUNDLED, ROOT, encode, scene

FOUND = examples.find(examples.README.read_text(encoding="utf-8"))


def shape(value: Any) -> Any:
    """Names and kinds, without the values."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def test_the_page_says_where_everything_is() -> None:
    text = examples.README.read_text(encoding="utf-8")
    rooms = [path.name for path in ROOT.glob("*.py")] + [f"{path.parent.name}/" for path in ROOT.glob("*/__init__.py")]
    assert [room for room in rooms if f"`{room}`" not in text and room != "tests/"] == []


def test_every_curl_command_of_the_readme_is_an_example() -> None:
    text = examples.README.read_text(encoding="utf-8")
    assert len(FOUND) == text.count("curl localhost:8000")
    assert len(FOUND) >= 5


@pytest.mark.parametrize("example", FOUND, ids=range(len(FOUND)))
def test_the_answer_is_the_one_shown(live_url: str, example: examples.Example) -> None:
    status, answer = examples.run(example.command, live_url.removeprefix("http://"))
    shown = json.loads(example.answer)
    assert status == (shown["status"] if "type" in shown else 200)
    assert shape(answer) == shape(shown)
    for same in ("model", "shot_id", "type", "title", "detail", "errors"):
        assert answer.get(same) == shown.get(same), "run: make readme"


def test_refreshed_writes_the_answers_in_and_nothing_else(live_url: str) -> None:
    text = "# Title\n\n```sh\ncurl localhost:8000/health/live\n```\n\n```json\n{}\n```\n\n```sh\ncurl --help\n```\n"
    new = examples.refreshed(text, live_url.removeprefix("http://"))
    assert new == text.replace("{}", '{"status": "alive"}')


@pytest.mark.parametrize("value", [{}, [], {"a": [1, {"b": "é" * 200}], "c": {}}, ["x" * 100, "y" * 100], None])
def test_written_is_the_same_json(value: Any) -> None:
    assert json.loads(examples.written(value)) == value


def test_the_sample_request_is_a_good_shot() -> None:
    shot = Shot.model_validate_json(REQUEST.read_text(encoding="utf-8"))
    assert len(shot.images) == 5
    assert shot.audio_features is not None
    assert shot.audio_features.rms_energy_mean


def test_the_bundled_checkpoint_is_named_alike() -> None:
    assert bundled_model() == BUNDLED


def test_the_picture_shows_frames_and_scores() -> None:
    frames = [encode(scene(seed)) for seed in range(5)]
    low, high = (draw(frames, {"caption": "A word " * 40, "attributes": {"motion": s}}, "us") for s in (0.0, 1.0))
    assert low.size == high.size
    changed = np.any(np.asarray(low) != np.asarray(high), axis=-1)
    assert changed.sum() > 1000
    top = Image.open(BytesIO(base64.b64decode(frames[0]))).height
    assert not changed[:top].any()


def test_the_picture_of_the_readme_is_there() -> None:
    assert f"]({PICTURE.relative_to(examples.ROOT)})" in examples.README.read_text(encoding="utf-8")
    with Image.open(PICTURE) as picture:
        assert picture.width > 1000


def test_the_picture_of_the_report_is_there() -> None:
    assert f"]({report.PICTURE.name})" in (examples.ROOT / "docs/client.md").read_text(encoding="utf-8")
    with Image.open(report.PICTURE) as picture:
        assert picture.width > 1000
