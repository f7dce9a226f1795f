"""The fusion stays within 0..1, is monotone, and can be recomputed from what the client sees."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer import ShotAnalyzer
from qwen_shots.audio import classify
from qwen_shots.fusion import MOOD, fuse, key_frame_indices, key_frame_weights, recompute
from qwen_shots.schemas import Analysis, AudioEvidence, AudioFeatures, Evidence, Measured, Shot
from qwen_shots.scoring import Reading
from settings import ProcessingSettings
from tests import helpers
from tests.fakes import FakeEngine

NAMES = ("suspense", "darkness", "ambiguity", "emotional_tension", "intensity", "motion", "own_attribute")
RAISED = {"suspense", "darkness", "intensity"}
ROUNDING = 1e-4  # the answer's last decimal, half of it at each end of a difference

share = st.floats(0, 1)
amount = st.floats(0, allow_infinity=False)
number = st.floats(allow_nan=False, allow_infinity=False)


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


sounds = st.builds(
    AudioFeatures,
    mfcc_mean=maybe(st.lists(number, min_size=13, max_size=13)),
    mfcc_std=maybe(st.lists(amount, min_size=13, max_size=13)),
    spectral_centroid_mean=maybe(amount),
    spectral_centroid_std=maybe(amount),
    spectral_rolloff_mean=maybe(amount),
    spectral_bandwidth_mean=maybe(amount),
    zero_crossing_rate_mean=maybe(share),
    rms_energy_mean=maybe(share),
    rms_energy_std=maybe(share),
    chroma_mean=maybe(st.lists(amount, min_size=12, max_size=12)),
    tempo=maybe(amount),
    duration=maybe(amount),
)
classes = st.builds(AudioEvidence, audio_class=st.sampled_from(list(MOOD)), confidence=share, loudness=share)
readings = st.builds(Reading, value=share, spread=st.floats(0, 0.5), mass=share, mode=share)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """Everything that `fuse` takes, whatever the model, the pixels, the sound and the settings are."""
    sent = draw(st.integers(1, 10))
    frames = len(key_frame_indices(sent))
    return {
        "readings": {name: [draw(readings) for _ in range(frames)] for name in NAMES},
        "measured": Measured(luminance=draw(share), darkness=draw(share), motion=draw(share) if sent > 1 else None),
        "audio": draw(maybe(classes)),
        "temporal_weight": draw(share),
        "luminance_weight": draw(share),
        "audio_weight": draw(share),
        "sent": sent,
    }


@given(case=cases())
def test_always_within_0_and_1(case: dict[str, Any]) -> None:
    scores, _ = fuse(**case)
    assert set(scores) == set(NAMES)
    assert all(0 <= score <= 1 and score == round(score, 4) for score in scores.values())


@given(case=cases())
def test_sound_adds_at_most_its_weight_and_to_three_scores_only(case: dict[str, Any]) -> None:
    heard, evidence = fuse(**case)
    unheard, _ = fuse(**case | {"audio": None})
    for name in NAMES:
        assert 0 <= evidence.fusion[name].audio <= case["audio_weight"]
        assert unheard[name] <= heard[name] <= unheard[name] + case["audio_weight"] + ROUNDING
        if name not in RAISED:
            assert heard[name] == unheard[name]


@given(case=cases())
def test_without_weights_the_model_alone_speaks(case: dict[str, Any]) -> None:
    scores, evidence = fuse(**case | {"temporal_weight": 0.0, "luminance_weight": 0.0, "audio_weight": 0.0})
    for name, values in case["readings"].items():
        shares = key_frame_weights(len(values))
        assert scores[name] == pytest.approx(
            sum(w * reading.value for w, reading in zip(shares, values, strict=True)), abs=ROUNDING
        )
        assert evidence.fusion[name].measurement == evidence.fusion[name].audio == 0


@given(case=cases())
def test_with_full_weight_the_measurement_alone_speaks(case: dict[str, Any]) -> None:
    scores, _ = fuse(**case | {"temporal_weight": 1.0, "luminance_weight": 1.0, "audio": None})
    assert scores["darkness"] == pytest.approx(case["measured"].darkness, abs=ROUNDING)
    if case["measured"].motion is not None:
        assert scores["motion"] == pytest.approx(case["measured"].motion, abs=ROUNDING)


@given(case=cases(), name=st.sampled_from(NAMES), frame=st.integers(0, 2), more=share)
def test_a_higher_reading_never_lowers(case: dict[str, Any], name: str, frame: int, more: float) -> None:
    before, _ = fuse(**case)
    values = list(case["readings"][name])
    at = frame % len(values)
    old = values[at]
    values[at] = Reading(value=max(old.value, more), spread=old.spread, mass=old.mass, mode=old.mode)
    after, _ = fuse(**case | {"readings": case["readings"] | {name: values}})
    assert after[name] >= before[name]
    assert {other: after[other] for other in NAMES if other != name} == {
        other: before[other] for other in NAMES if other != name
    }


@given(case=cases(), more=share)
def test_a_darker_or_livelier_picture_never_lowers(case: dict[str, Any], more: float) -> None:
    before, _ = fuse(**case)
    old: Measured = case["measured"]
    motion = None if old.motion is None else max(old.motion, more)
    measured = Measured(luminance=old.luminance, darkness=max(old.darkness, more), motion=motion)
    after, _ = fuse(**case | {"measured": measured})
    assert after["darkness"] >= before["darkness"]
    assert after["motion"] >= before["motion"]


@given(case=cases(), sound=sounds, levels=st.tuples(share, share))
def test_louder_never_lowers_intensity(case: dict[str, Any], sound: AudioFeatures, levels: tuple[float, float]) -> None:
    quiet, loud = (
        fuse(**case | {"audio": classify(sound.model_copy(update={"rms_energy_mean": level}))})[0]
        for level in sorted(levels)
    )
    assert quiet["intensity"] <= loud["intensity"]


@given(case=cases(), audio=classes, surer=share)
def test_a_surer_class_never_lowers(case: dict[str, Any], audio: AudioEvidence, surer: float) -> None:
    before, _ = fuse(**case | {"audio": audio})
    sure = audio.model_copy(update={"confidence": max(audio.confidence, surer)})
    after, _ = fuse(**case | {"audio": sure})
    assert all(after[name] >= before[name] for name in NAMES)


@given(case=cases(), sound=maybe(sounds))
def test_the_evidence_on_the_wire_recomputes_the_answer_exactly(
    case: dict[str, Any], sound: AudioFeatures | None
) -> None:
    scores, evidence = fuse(**case | {"audio": classify(sound) if sound else None})
    answer = Analysis(shot_id=1, caption="", attributes=scores, evidence=evidence)
    seen = json.loads(answer.model_dump_json())
    assert by_the_recipe(seen["evidence"]) == seen["attributes"] == scores
    again = Evidence.model_validate_json(json.dumps(seen["evidence"]))
    assert again == evidence
    assert recompute(again) == scores


def by_the_recipe(evidence: dict[str, Any]) -> dict[str, float]:
    """What a client that reads `Evidence`'s description would write."""
    weights, measured, audio = evidence["weights"], evidence["measured"], evidence["audio"]
    scores = {}
    for name, per_frame in evidence["readings"].items():
        visual = 0.0
        for frame, reading in zip(evidence["key_frames"], per_frame, strict=True):
            visual += frame["weight"] * reading["value"]
        measurement = 0.0
        if name == "motion" and measured["motion"] is not None:
            measurement = weights["temporal"] * (measured["motion"] - visual)
        if name == "darkness":
            measurement = weights["luminance"] * (measured["darkness"] - visual)
        sound = 0.0
        if audio:
            strength = audio["confidence"] * MOOD[audio["audio_class"]].get(name, 0.0)
            if name == "intensity":
                strength = audio["loudness"]
            sound = weights["audio"] * strength * (1 - min(1.0, max(0.0, visual + measurement)))
        step = evidence["fusion"][name]
        assert (step["visual"], step["measurement"], step["audio"]) == (visual, measurement, sound)
        scores[name] = min(1.0, max(0.0, round(visual + measurement + sound, 4)))
    return scores


@given(sound=sounds)
def test_any_sound_that_the_wire_lets_in_has_a_class_or_none(sound: AudioFeatures) -> None:
    heard = classify(sound)
    assert (heard is None) == (sound.rms_energy_mean is None)
    if heard:
        assert heard.audio_class in MOOD


@pytest.mark.parametrize("enabled", [True, False])
def test_the_setting_turns_the_sound_off(enabled: bool) -> None:
    def analysed(shot: dict[str, Any]) -> Analysis:
        analyzer = ShotAnalyzer(FakeEngine(NAMES), ProcessingSettings(enable_audio_fusion=enabled))
        try:
            return asyncio.run(analyzer.analyze(Shot.model_validate(shot), explain=True))
        finally:
            analyzer.close()

    heard, unheard = analysed(helpers.shot()), analysed(helpers.shot(audio_features=None))
    assert heard.evidence
    assert (heard.evidence.audio is not None) is enabled
    louder = {name for name in NAMES if heard.attributes[name] > unheard.attributes[name]}
    assert ("intensity" in louder) is enabled
    assert louder <= (RAISED if enabled else set())


@pytest.mark.parametrize(
    ("sent", "indices"),
    [
        (1, (0,)),
        (2, (0, 1)),
        (3, (0, 1, 2)),
        (4, (0, 2, 3)),
        (5, (0, 2, 4)),
        (6, (0, 3, 5)),
        (7, (0, 3, 6)),
        (8, (0, 4, 7)),
        (9, (0, 4, 8)),
        (10, (0, 5, 9)),
    ],
)
def test_key_frames_are_the_first_the_middle_and_the_last(sent: int, indices: tuple[int, ...]) -> None:
    assert key_frame_indices(sent) == indices


@pytest.mark.parametrize(("frames", "weights"), [(1, (1.0,)), (2, (0.5, 0.5)), (3, (0.25, 0.5, 0.25))])
def test_the_middle_key_frame_counts_double(frames: int, weights: tuple[float, ...]) -> None:
    assert key_frame_weights(frames) == weights


@pytest.mark.parametrize("count", [0, 4, 5, -1])
def test_other_numbers_of_key_frames_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 3"):
        key_frame_weights(count)


def test_a_shot_without_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        key_frame_indices(0)


def test_a_reading_too_few_is_refused() -> None:
    reading = Reading(value=0.5, spread=0.1, mass=1.0, mode=0.5)
    with pytest.raises(ValueError, match="argument"):
        fuse(
            {"suspense": [reading, reading]},
            Measured(luminance=0.2, darkness=0.5, motion=0.1),
            None,
            temporal_weight=0.3,
            luminance_weight=0.3,
            audio_weight=0.2,
            sent=5,
        )
