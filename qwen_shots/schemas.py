"""The wire: what comes in and what goes out, as pydantic models.

Validation is strict (no text for a number, no number for text) and closed (an unknown field is an error), so a
client's mistake is named instead of being swallowed.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, model_validator

MAX_IMAGES = 10
MAX_ID_LENGTH = 256

# Largest integer that every JSON client reads back as it was sent (2**53 - 1, RFC 8259 section 6).
MAX_INTEGER_ID = 2**53 - 1

Finite = Annotated[float, Field(allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Mfcc = Annotated[list[Finite], Field(min_length=13, max_length=13)]
Chroma = Annotated[list[NotNegative], Field(min_length=12, max_length=12)]


def _whole(value: Any) -> Any:
    """3.0 is an integer to JSON, and to languages that know one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


ShotId = (
    # The bounds first: behind a validator pydantic doesn't know how to write them into a JSON schema.
    Annotated[int, Field(ge=-MAX_INTEGER_ID, le=MAX_INTEGER_ID), BeforeValidator(_whole)]
    | Annotated[str, Field(min_length=1, max_length=MAX_ID_LENGTH)]
)

# Only for the OpenAPI text: no JSON schema can say that a text is a picture, but tools that make up requests can know
# the format by its name and put pictures there.
PICTURE_FORMAT = "base64-picture"
PictureText = Annotated[str, Field(json_schema_extra={"format": PICTURE_FORMAT, "contentEncoding": "base64"})]

EXAMPLE_AUDIO: dict[str, Any] = {
    "mfcc_mean": [-180.2, 96.1, -12.4, 28.0, -3.1, 9.7, -6.2, 4.4, -5.0, 2.1, -3.3, 1.0, -2.2],
    "mfcc_std": [42.0, 21.3, 15.2, 12.8, 10.1, 9.4, 8.8, 8.1, 7.9, 7.2, 6.8, 6.6, 6.1],
    "spectral_centroid_mean": 2500.5,
    "spectral_centroid_std": 310.0,
    "spectral_rolloff_mean": 5000.0,
    "spectral_bandwidth_mean": 2100.0,
    "zero_crossing_rate_mean": 0.08,
    "rms_energy_mean": 0.045,
    "rms_energy_std": 0.02,
    "chroma_mean": [0.31, 0.22, 0.45, 0.28, 0.61, 0.33, 0.25, 0.52, 0.3, 0.41, 0.27, 0.38],
    "tempo": 120.0,
    "duration": 2.3,
}

EXAMPLE_ANALYSIS: dict[str, Any] = {
    "shot_id": 1,
    "caption": "A person walking in a dark hallway",
    "attributes": {
        "suspense": 0.78,
        "darkness": 0.65,
        "ambiguity": 0.71,
        "emotional_tension": 0.59,
        "intensity": 0.82,
        "motion": 0.45,
    },
}


class Wire(BaseModel):
    """Base of everything on the wire: strict, closed, frozen."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class AudioFeatures(Wire):
    """How the shot sounds, with librosa's names and units. Any field may be null or missing."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_AUDIO]})

    mfcc_mean: Mfcc | None = Field(None, description="13 mel-frequency cepstral coefficients, mean over the shot")
    mfcc_std: Annotated[list[NotNegative], Field(min_length=13, max_length=13)] | None = Field(
        None, description="Their standard deviations"
    )
    spectral_centroid_mean: NotNegative | None = Field(None, description="Hz")
    spectral_centroid_std: NotNegative | None = Field(None, description="Hz")
    spectral_rolloff_mean: NotNegative | None = Field(None, description="Hz")
    spectral_bandwidth_mean: NotNegative | None = Field(None, description="Hz")
    zero_crossing_rate_mean: Share | None = Field(None, description="Crossings per sample, 0..1")
    rms_energy_mean: Share | None = Field(None, description="Linear RMS amplitude, 0..1 of full scale")
    rms_energy_std: Share | None = Field(None, description="Its standard deviation over the shot")
    chroma_mean: Chroma | None = Field(None, description="12 pitch classes from C, mean over the shot")
    tempo: NotNegative | None = Field(None, description="Beats a minute; null for short or silent shots")
    duration: NotNegative | None = Field(None, description="Seconds of sound that were measured")


class Shot(Wire):
    """One shot of a film: frames in time order, how it sounds, and where it stands in the film."""

    shot_id: ShotId = Field(description="Your name for the shot: an integer or a text. The answer bears it again")
    images: list[PictureText] = Field(
        min_length=1,
        max_length=MAX_IMAGES,
        description="1 to 10 frames in time order, 5 expected: each a base64 JPEG, PNG or WebP",
    )
    audio_features: AudioFeatures | None = Field(None, description="Null or missing for a shot without sound")
    start_time: NotNegative = Field(description="Seconds from the start of the film")
    end_time: NotNegative = Field(description="Seconds from the start of the film, not before start_time")
    duration: NotNegative = Field(description="Seconds")

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> Shot:
        if self.end_time < self.start_time:
            raise ValueError("end_time must not be before start_time")
        return self


class Batch(Wire):
    """Some shots of a film. The server checks each by itself: one bad shot costs no other."""

    shots: list[Shot] = Field(min_length=1, description="At most processing.max_batch_size shots")


class KeyFrame(Wire):
    """One of the frames that the model saw."""

    index: int = Field(description="Position among the frames sent, from 0")
    weight: Share = Field(description="Its share of the visual score; all weights sum to 1")


class FrameReading(Wire):
    """What the model answered for one attribute of one key frame."""

    value: Share = Field(description="Expected value of the model's answer")
    spread: NotNegative = Field(description="Standard deviation of the model's answer: wide means unsure")
    mass: Share = Field(description="Probability that the model put on numbers rather than on other words")


class Measured(Wire):
    """What was measured from the pixels, without the model."""

    luminance: Share = Field(description="Mean relative luminance of the key frames, linear light, 0..1")
    darkness: Share = Field(description="The same as darkness: 1 - L*/100 of CIE 1976")
    motion: Share | None = Field(
        description="1 - exp(-D / 0.16), D: how far the picture moves between neighbouring frames, in picture widths, "
        "over all the frames sent; null for a single frame"
    )


class AudioEvidence(Wire):
    """How the sound was classified."""

    audio_class: str = Field(description="silent, dialog, music or ambiance")
    confidence: Share = Field(
        description="By how much the class's probability exceeds the next one's; less where its signs contradict each "
        "other, and for music that may hide speech"
    )
    loudness: Share = Field(description="0 at the silence threshold, 1 at full scale")


class FusionStep(Wire):
    """How one score came about: `visual + measurement + audio`, rounded to 4 decimals, is the answer."""

    visual: Share = Field(description="Weighted mean of the key frames' values")
    measurement: Finite = Field(description="What the measured luminance or motion added")
    audio: Finite = Field(description="What the sound added")


class FusionWeights(Wire):
    """The settings that the fusion ran with."""

    temporal: Share = Field(description="processing.temporal_weight")
    luminance: Share = Field(description="processing.luminance_weight")
    audio: Share = Field(description="processing.audio_weight")


class Evidence(Wire):
    """Everything that recomputes the answer exactly. Asked for with `?explain=true`.

    For each attribute, in 64-bit floats, from left to right:

    - `visual` is the sum over the key frames of `weight * value`.
    - `measurement` is `weights.temporal * (measured.motion - visual)` for motion, where motion was measured, and
      `weights.luminance * (measured.darkness - visual)` for darkness; else 0.
    - `audio` is `weights.audio * strength * (1 - score)`, where `score` is `visual + measurement` clipped to 0..1 and
      `strength` is `audio.loudness` for intensity, and `audio.confidence` times the class's share
      (`qwen_shots.fusion.MOOD`) for suspense and darkness; else 0.
    - The answer is `visual + measurement + audio` rounded to 4 decimals and clipped to 0..1.

    `qwen_shots.fusion.recompute` does this.
    """

    key_frames: list[KeyFrame]
    weights: FusionWeights
    readings: dict[str, list[FrameReading]] = Field(description="Attribute to one reading a key frame")
    measured: Measured
    audio: AudioEvidence | None = Field(description="Null without audio features or with fusion off")
    fusion: dict[str, FusionStep] = Field(description="Attribute to what each step added")


class Analysis(Wire):
    """How one shot feels."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_ANALYSIS]})

    shot_id: ShotId
    caption: str
    attributes: dict[str, Share] = Field(description="Attribute to score, 0..1, rounded to 4 decimals")
    evidence: Evidence | None = Field(None, description="Only with ?explain=true")


class BatchError(Wire):
    """Why one shot of a batch has no analysis."""

    index: int = Field(description="Position in the batch as sent, from 0")
    shot_id: ShotId | None = Field(description="Null when the shot had none that could be read")
    type: str
    title: str
    detail: str


class BatchAnalysis(Wire):
    """The shots that worked, in the order sent, and the reason for each that did not."""

    # What is wrong a million times is told once: each error would take a client 1 kB.
    results: Annotated[list[Analysis], FailFast()]
    errors: Annotated[list[BatchError], FailFast()]


class Health(Wire):
    """Whether a shot could be analysed now."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "status": "healthy",
                    "model": "Qwen/Qwen2-VL-2B-Instruct",
                    "device": "cuda",
                    "gpu_count": 4,
                    "gpu_memory_total": "80.0 GB",
                }
            ]
        }
    )

    status: str = Field(description="healthy; with 503: loading, degraded or draining")
    model: str
    device: str | None = Field(description="cuda, cpu, or remote for endpoints; null while the model is being loaded")
    gpu_count: int
    gpu_memory_total: str | None = Field(description="Null on the CPU")


class Problem(BaseModel):
    """An error, as RFC 9457 describes it (application/problem+json)."""

    type: str = Field(description="Names the kind of error", examples=["urn:qwen-shots:error:invalid-shot"])
    title: str
    status: int
    detail: str = Field(description="What is wrong, with the field and the limit")
    request_id: str = Field(description="Name this when you ask the operator about it")
