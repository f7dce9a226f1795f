"""From the readings, the measurements and the sound to the scores.

Every step is an addend: `visual + measurement + audio`, rounded to 4 decimals, is the answer. The recipe stands in
`qwen_shots.schemas.Evidence`; `recompute` follows it from the evidence alone.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from qwen_shots.schemas import (
    AudioEvidence,
    Evidence,
    FrameReading,
    FusionStep,
    FusionWeights,
    KeyFrame,
    Measured,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qwen_shots.scoring import Reading

# How far each sound class raises a mood, as a share of `audio_weight`. Choices of film craft, not measurements: silence
# and bare ambience make one wait, a score colours the mood, and talk tells nothing that the picture doesn't.
MOOD: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "silent": MappingProxyType({"suspense": 0.5}),
        "dialog": MappingProxyType({}),
        "music": MappingProxyType({"suspense": 0.5}),
        "ambiance": MappingProxyType({"suspense": 1.0, "darkness": 0.5}),
    }
)


class HasValue(Protocol):
    """A reading, as the model gave it or as evidence tells of it."""

    @property
    def value(self) -> float:
        """Expected value of the answer, 0..1."""


KEY_FRAMES = 3
"""So many pictures of a shot the model sees at most."""


def key_frame_indices(count: int) -> tuple[int, ...]:
    """Which of `count` frames the model sees: the first, the middle and the last, or all when there are three or fewer.

    Raises:
        ValueError: no frames.
    """
    if count < 1:
        raise ValueError("a shot has at least one frame")
    return tuple(range(count)) if count <= KEY_FRAMES else (0, count // 2, count - 1)


def key_frame_weights(count: int) -> tuple[float, ...]:
    """The shares of `count` key frames in the visual score; they sum to 1 and the middle one of three counts double.

    Raises:
        ValueError: not 1, 2 or 3.
    """
    weights = {1: (1.0,), 2: (0.5, 0.5), 3: (0.25, 0.5, 0.25)}
    if count not in weights:
        raise ValueError("a shot has 1 to 3 key frames")
    return weights[count]


def fuse(
    readings: Mapping[str, Sequence[Reading]],
    measured: Measured,
    audio: AudioEvidence | None,
    *,
    temporal_weight: float,
    luminance_weight: float,
    audio_weight: float,
    sent: int,
) -> tuple[dict[str, float], Evidence]:
    """Bring everything known of a shot together.

    Args:
        readings: attribute to one reading a key frame, in time order.
        measured: what the pixels say. Mixed into `motion` and `darkness`.
        audio: how it sounds; None without sound or with audio fusion off, and then the sound changes nothing.
        temporal_weight: share of `motion` that comes from the measurement, 0..1.
        luminance_weight: share of `darkness` that comes from the measurement, 0..1.
        audio_weight: the most that the sound may add to a score, 0..1.
        sent: number of frames sent.

    Returns:
        The scores, 0..1 and rounded to 4 decimals, and the evidence that recomputes them exactly.

    Raises:
        ValueError: an attribute has not one reading a key frame.
    """
    indices = key_frame_indices(sent)
    shares = key_frame_weights(len(indices))
    weights = FusionWeights(temporal=temporal_weight, luminance=luminance_weight, audio=audio_weight)
    steps = {
        name: _step(name, per_frame, shares, measured=measured, audio=audio, weights=weights)
        for name, per_frame in readings.items()
    }
    evidence = Evidence(
        key_frames=[KeyFrame(index=index, weight=share) for index, share in zip(indices, shares, strict=True)],
        weights=weights,
        readings={name: [_told(reading) for reading in per_frame] for name, per_frame in readings.items()},
        measured=measured,
        audio=audio,
        fusion=steps,
    )
    return {name: _answer(step) for name, step in steps.items()}, evidence


def recompute(evidence: Evidence) -> dict[str, float]:
    """The scores again, from nothing but the evidence's readings, measurements, sound and weights."""
    shares = [frame.weight for frame in evidence.key_frames]
    return {
        name: _answer(
            _step(name, per_frame, shares, measured=evidence.measured, audio=evidence.audio, weights=evidence.weights)
        )
        for name, per_frame in evidence.readings.items()
    }


def _step(
    name: str,
    per_frame: Sequence[HasValue],
    shares: Sequence[float],
    *,
    measured: Measured,
    audio: AudioEvidence | None,
    weights: FusionWeights,
) -> FusionStep:
    visual = 0.0
    for share, reading in zip(shares, per_frame, strict=True):
        visual += share * reading.value  # not sum(): since Python 3.12 that rounds otherwise, and exact means exact
    measurement = _measurement(name, visual, measured, weights)
    score = min(1.0, max(0.0, visual + measurement))
    # A share of the room that is left: never above 1, never more than audio_weight, and growing with the score.
    heard = 0.0 if audio is None else weights.audio * _strength(name, audio) * (1 - score)
    return FusionStep(visual=visual, measurement=measurement, audio=heard)


def _measurement(name: str, visual: float, measured: Measured, weights: FusionWeights) -> float:
    if name == "motion" and measured.motion is not None:
        return weights.temporal * (measured.motion - visual)
    if name == "darkness":
        return weights.luminance * (measured.darkness - visual)
    return 0.0


def _strength(name: str, audio: AudioEvidence) -> float:
    """How much of `audio_weight` the sound uses for an attribute, 0..1."""
    if name == "intensity":
        # By loudness alone: were the class asked too, a louder sound that changes class could lower the score.
        return audio.loudness
    return audio.confidence * MOOD.get(audio.audio_class, {}).get(name, 0.0)


def _answer(step: FusionStep) -> float:
    return min(1.0, max(0.0, round(step.visual + step.measurement + step.audio, 4)))


def _told(reading: Reading) -> FrameReading:
    return FrameReading(value=reading.value, spread=reading.spread, mass=min(1.0, reading.mass))
