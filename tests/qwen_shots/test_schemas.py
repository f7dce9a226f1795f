"""The wire takes what the contract shows, and lets nothing out that is not a score."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from qwen_shots.schemas import EXAMPLE_AUDIO, Analysis, AudioFeatures, Batch, BatchAnalysis, Health, Shot

# As a client sends it, in its own order of keys.
SHOT = """
{"shot_id": 1,
 "images": ["/9j/4AAQ", "/9j/4AAQ", "/9j/4AAQ", "/9j/4AAQ", "/9j/4AAQ"],
 "audio_features": {"mfcc_mean": [-180, 96.1, -12.4, 28.0, -3.1, 9.7, -6.2, 4.4, -5, 2.1, -3.3, 1.0, -2.2],
   "mfcc_std": [42, 21.3, 15.2, 12.8, 10.1, 9.4, 8.8, 8.1, 7.9, 7.2, 6.8, 6.6, 6.1],
   "spectral_centroid_mean": 2500.5, "spectral_centroid_std": 310.0, "spectral_rolloff_mean": 5000.0,
   "spectral_bandwidth_mean": 2100.0, "zero_crossing_rate_mean": 0.08, "rms_energy_mean": 0.045,
   "rms_energy_std": 0.02, "chroma_mean": [0, 0.2, 0.4, 0.2, 0.6, 0.3, 0.2, 0.5, 0.3, 0.4, 0.2, 1],
   "tempo": 120.0, "duration": 2.3},
 "start_time": 10.5, "end_time": 12.8, "duration": 2.3}
"""
ANALYSIS = """
{"shot_id": 1, "caption": "A person walking in a dark hallway",
 "attributes": {"suspense": 0.78, "darkness": 0.65, "ambiguity": 0.71,
                "emotional_tension": 0.59, "intensity": 0.82, "motion": 0.45}}
"""
HEALTH = """
{"status": "healthy", "model": "Qwen/Qwen2-VL-2B-Instruct", "device": "cuda", "gpu_count": 4,
 "gpu_memory_total": "80.0 GB"}
"""


def changed(**changes: Any) -> str:
    return json.dumps(json.loads(SHOT) | changes)


def test_the_contracts_examples() -> None:
    shot = Shot.model_validate_json(SHOT)
    assert shot.model_dump() == json.loads(SHOT)
    assert Batch.model_validate_json(f'{{"shots": [{SHOT}, {SHOT}]}}').shots == [shot, shot]
    assert Analysis.model_validate_json(ANALYSIS).model_dump(exclude_unset=True) == json.loads(ANALYSIS)
    assert Health.model_validate_json(HEALTH).model_dump() == json.loads(HEALTH)


@pytest.mark.parametrize("model", [AudioFeatures, Analysis, Health])
def test_examples_in_the_docs_are_valid(model: type[AudioFeatures | Analysis | Health]) -> None:
    for example in model.model_json_schema()["examples"]:
        assert model.model_validate_json(json.dumps(example)).model_dump(exclude_unset=True) == example


@given(
    kept=st.sets(st.sampled_from(sorted(EXAMPLE_AUDIO))),
    null=st.sets(st.sampled_from(sorted(EXAMPLE_AUDIO))),
)
def test_any_audio_field_may_be_null_or_missing(kept: set[str], null: set[str]) -> None:
    sent = {name: None if name in null else EXAMPLE_AUDIO[name] for name in kept}
    features = Shot.model_validate_json(changed(audio_features=sent)).audio_features
    assert features
    for name in EXAMPLE_AUDIO:
        assert getattr(features, name) == sent.get(name)


def test_audio_may_be_null_or_missing() -> None:
    without = json.loads(SHOT)
    del without["audio_features"]
    for text in (json.dumps(without), changed(audio_features=None)):
        assert Shot.model_validate_json(text).audio_features is None


@pytest.mark.parametrize("count", range(1, 11))
def test_1_to_10_images(count: int) -> None:
    assert len(Shot.model_validate_json(changed(images=["/9j/4AAQ"] * count)).images) == count


@pytest.mark.parametrize("times", [(0, 0, 0), (10, 12, 2), (10.5, 10.5, 0.0), (0.0, 1e6, 1e6)])
def test_times_may_be_integers_and_equal(times: tuple[float, float, float]) -> None:
    start, end, duration = times
    shot = Shot.model_validate_json(changed(start_time=start, end_time=end, duration=duration))
    assert (shot.start_time, shot.end_time, shot.duration) == times


@given(score=st.floats().filter(lambda number: not 0 <= number <= 1))
def test_no_score_outside_0_and_1_gets_out(score: float) -> None:
    with pytest.raises(ValidationError):
        Analysis(shot_id=1, caption="", attributes={"suspense": score})


@given(scores=st.dictionaries(st.text(min_size=1), st.floats(0, 1)), name=st.integers(-9, 9) | st.text(min_size=1))
def test_an_answer_is_read_back_as_it_was_sent(scores: dict[str, float], name: int | str) -> None:
    answer = BatchAnalysis(results=[Analysis(shot_id=name, caption="größer 🎬", attributes=scores)], errors=[])
    assert BatchAnalysis.model_validate_json(answer.model_dump_json()) == answer


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["start_time", "end_time", "duration"])
def test_times_are_finite(field: str, bad: float) -> None:
    with pytest.raises(ValidationError):
        Shot.model_validate(json.loads(SHOT) | {field: bad})


def test_nothing_on_the_wire_changes_once_it_is_checked() -> None:
    shot = Shot.model_validate_json(SHOT)
    with pytest.raises(ValidationError, match="frozen"):
        shot.duration = 1.0  # type: ignore[misc]


def test_a_whole_number_names_a_shot_however_it_is_written() -> None:
    good = {"images": ["x"], "start_time": 0, "end_time": 1, "duration": 1}
    name = Shot.model_validate(good | {"shot_id": 3.0}).shot_id
    assert (name, type(name)) == (3, int)
    for wrong in (3.5, 1e300, float("inf"), float("nan"), True):
        with pytest.raises(ValidationError):
            Shot.model_validate(good | {"shot_id": wrong})


@pytest.mark.parametrize("name", ["results", "errors"])
def test_an_answer_that_is_wrong_in_many_places_is_told_of_once(name: str) -> None:
    """Each mistake is an object of some hundred bytes, and a client does not choose what comes."""
    with pytest.raises(ValidationError) as caught:
        BatchAnalysis.model_validate_json(f'{{"{name}": [{"[]," * 1000}[]]}}')
    assert caught.value.error_count() <= 3
