"""What kind of sound a shot has: silent, dialog, music or ambiance, and how sure that is.

Loudness tells silence from sound and nothing else. Speech is told by variation: it stops between syllables and jumps
between vowels and hisses. Music is told from ambience by its timbre moving from note to note and its pitch classes
standing out. Each cue votes between -1 and 1, `tanh(ln(value / threshold) / width)`, and the weighted votes are
log-odds.

Sources of the thresholds: (table) 120 labelled real one-second clips, 40 each of silence, speech and music; (made) the
synthetic speech, music and ambience of tests/qwen_shots/sounds.py, where each stands midway between the classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from qwen_shots.schemas import AudioEvidence, AudioFeatures

if TYPE_CHECKING:
    from collections.abc import Sequence

AudioClass = Literal["silent", "dialog", "music", "ambiance"]

SILENCE_DBFS = -55.0  # (table) silence lies at -71 and below in nine of ten clips, quiet ambience at -49 and above
SILENCE_WIDTH = 2.0  # dB: 19 to 1 at -49 and at -61

# Speech over equally loud music passes for music (made: 20 of 20, with confidences up to .95 without this ceiling), and
# films are full of it.
MUSIC_CEILING = 0.7


@dataclass(frozen=True, slots=True)
class Cue:
    """One thing that tells two kinds of sound apart.

    Attributes:
        threshold: the value that speaks for neither.
        width: natural logarithm of the factor beyond the threshold at which the cue is 0.76 sure.
        weight: its most log-odds. Negative where a small value speaks for the first kind.
    """

    threshold: float
    width: float
    weight: float

    def vote(self, value: float | None) -> float:
        """Log-odds for the first kind; 0 for a value that is missing."""
        if value is None:
            return 0.0
        return self.weight * math.tanh(math.log(max(value, 1e-9) / self.threshold) / self.width)


# Speech against all else.
RMS_VARIATION = Cue(0.50, 0.35, 2.5)  # (table) music's 90th percentile .45, speech's 10th .55; alone AUC .97
CENTROID_VARIATION = Cue(0.40, 0.35, 1.2)  # (made) music up to .37, speech from .43
TIMBRE_OF_SPEECH = Cue(22.5, 0.25, 0.8)  # (made) music up to 22.3, speech from 23.3

# Music against ambience.
TIMBRE_OF_MUSIC = Cue(10.7, 0.25, 2.0)  # (made) ambience up to 8.5, music from 13.5
CHROMA_CONTRAST = Cue(0.25, 0.5, 1.2)  # (made) flat noise below .2, music above .28; hum and rumble also above
ZERO_CROSSINGS = Cue(0.15, 0.35, -0.6)  # (made) music up to .10, white and hissing noise from .2


def classify(features: AudioFeatures) -> AudioEvidence | None:
    """Say what kind of sound this is.

    The class is that of the largest probability, the confidence this probability. It is lowered down to half where the
    cues for speech contradict each other: dialogue over music has the even loudness of music and the moving timbre of
    speech. For music it is at most `MUSIC_CEILING`, for what sounds like music may hide speech. Every missing field is
    a cue less and so a lower confidence; with the loudness alone it is a third.

    Args:
        features: as librosa gives them; any may be None.

    Returns:
        Class, confidence and loudness, or None where there is no RMS energy to judge by.
    """
    if features.rms_energy_mean is None:
        return None
    level = 20 * math.log10(max(features.rms_energy_mean, 1e-9))
    loudness = min(1.0, max(0.0, 1 - level / SILENCE_DBFS))
    silent = _logistic((SILENCE_DBFS - level) / SILENCE_WIDTH)
    if level <= SILENCE_DBFS:
        return AudioEvidence(audio_class="silent", confidence=silent, loudness=loudness)
    name, confidence = _kind_of_sound(features)
    return AudioEvidence(audio_class=name, confidence=confidence * (1 - silent), loudness=loudness)


def _kind_of_sound(features: AudioFeatures) -> tuple[AudioClass, float]:
    for_speech = _votes_for_speech(features)
    # Three classes, equally likely before anything is heard.
    dialog = _logistic(sum(for_speech) - math.log(2))
    music = (1 - dialog) * _logistic(_votes_for_music(features))
    chances: dict[AudioClass, float] = {"ambiance": 1 - dialog - music, "music": music, "dialog": dialog}
    name = max(chances, key=lambda kind: chances[kind])
    confidence = chances[name] * (1 + _agreement(for_speech)) / 2
    return name, min(confidence, MUSIC_CEILING) if name == "music" else confidence


def _votes_for_speech(features: AudioFeatures) -> tuple[float, ...]:
    return (
        RMS_VARIATION.vote(_ratio(features.rms_energy_std, features.rms_energy_mean)),
        CENTROID_VARIATION.vote(_ratio(features.spectral_centroid_std, features.spectral_centroid_mean)),
        TIMBRE_OF_SPEECH.vote(_timbre_change(features.mfcc_std)),
    )


def _votes_for_music(features: AudioFeatures) -> float:
    return (
        TIMBRE_OF_MUSIC.vote(_timbre_change(features.mfcc_std))
        + CHROMA_CONTRAST.vote(_contrast(features.chroma_mean))
        + ZERO_CROSSINGS.vote(features.zero_crossing_rate_mean)
    )


def _agreement(votes: Sequence[float]) -> float:
    """1 when all votes point the same way, 0 when they cancel out; 1 without any."""
    total = sum(abs(vote) for vote in votes)
    return abs(sum(votes)) / total if total else 1.0


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def _timbre_change(mfcc_std: Sequence[float] | None) -> float | None:
    """Mean standard deviation of the MFCCs but the first, which is loudness."""
    return None if mfcc_std is None else _mean(mfcc_std[1:])


def _contrast(chroma: Sequence[float] | None) -> float | None:
    """Standard deviation over mean of the twelve pitch classes: 0 for flat noise, large for a few clear tones."""
    if chroma is None or not max(chroma):
        return None
    shares = [value / max(chroma) for value in chroma]
    mean = _mean(shares)
    return math.sqrt(_mean([(share - mean) ** 2 for share in shares])) / mean


def _mean(values: Sequence[float]) -> float:
    # Divided before they are added: any numbers that the wire lets in have a mean that is a number.
    return sum(value / len(values) for value in values)


def _logistic(log_odds: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return (1 + math.tanh(log_odds / 2)) / 2
