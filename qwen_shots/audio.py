"""What kind of sound a shot has: silent, dialog, music or ambiance, and how sure that is.

Loudness tells silence from sound and nothing else. Speech is told by variation: it stops between syllables and jumps
between vowels and hisses. Music is told by a few pitch classes standing out, and from ambience by its timbre moving
from note to note. Each cue votes between -1 and 1, `tanh(ln(value / threshold) / width)`, and the weighted votes are
log-odds.

Sources of the thresholds: (table) 120 labelled real one-second clips, 40 each of silence, speech and music, with their
10th to 90th percentiles; (made) the synthetic speech, music and ambience of tests/qwen_shots/sounds.py, seeds 0 to 59
at each of six lengths from 0.5 to 6 s, likewise with their 10th to 90th percentiles. The tests use other seeds.
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
CENTROID_VARIATION = Cue(0.40, 0.35, 0.8)  # (made) ambience up to .20, speech from .35; drums reach that too
COARSE_TIMBRE = Cue(28.0, 0.25, 1.5)  # (made) at about a second music up to 29, speech from 29; ambience up to 15
PLAIN_CHROMA = Cue(0.31, 0.5, -1.5)  # (made) speech up to .27, music from .37

# Below a second there is too little time for pauses, and below two for all the pitch classes. The exponents bring the
# medians of half a second near those of two and more (made: variation of speech .57 to .70, chroma contrast of music
# .86 to .51 and of speech .31 to .14).
SECONDS_FOR_PAUSES, PAUSES_EXPONENT = 1.0, -0.5
SECONDS_FOR_PITCHES, PITCHES_EXPONENT = 2.0, 0.4

# Music against ambience.
FINE_TIMBRE = Cue(10.0, 0.25, 2.0)  # (made) ambience up to 9, music from 11 at half a second and from 16 at two
CHROMA_CONTRAST = Cue(0.28, 0.5, 1.2)  # (made) noise and wind up to .20, music from .37; hum and rain too
ZERO_CROSSINGS = Cue(0.18, 0.35, -0.8)  # (made) music up to .14, white noise and rain from .29

# Speech hidden in music. It makes loudness vary more, blurs the pitch classes and moves the timbre.
HIDDEN_VARIATION = Cue(0.20, 0.35, 2.0)  # (made) medians: music .15, with speech as loud .28; (table) real music .24
HIDDEN_CHROMA = Cue(0.42, 0.35, -1.5)  # (made) medians: music .51, with speech as loud .34
HIDDEN_TIMBRE = Cue(24.0, 0.25, 1.0)  # (made) medians: music 22, with speech as loud 27


def classify(features: AudioFeatures) -> AudioEvidence | None:
    """Say what kind of sound this is.

    The class is the one of the largest probability, and the confidence is by how much this exceeds the next one. So
    it falls to 0 where the class changes, and nothing that is made of class and confidence jumps. It is lowered further

    - down to half where the cues that told this class from the others contradict each other;
    - for music, by the chance that speech is hidden in it: dialogue over music has the even loudness of music.

    Every missing field is a cue less; with the loudness alone the confidence is 0 for all but silence.

    Args:
        features: as librosa gives them; any may be None.

    Returns:
        Class, confidence and loudness, or None where there is no RMS energy to judge by.
    """
    if features.rms_energy_mean is None:
        return None
    level = 20 * math.log10(max(features.rms_energy_mean, 1e-9))
    silent = _logistic((SILENCE_DBFS - level) / SILENCE_WIDTH)
    for_speech, for_music = _votes_for_speech(features), _votes_for_music(features)
    # Three kinds of sound, equally likely before anything is heard.
    dialog = _logistic(sum(for_speech) - math.log(2))
    music = (1 - dialog) * _logistic(sum(for_music))
    sounds: dict[AudioClass, float] = {"ambiance": 1 - dialog - music, "music": music, "dialog": dialog}
    chances = {"silent": silent} | {name: (1 - silent) * chance for name, chance in sounds.items()}
    name, second = sorted(chances, key=lambda kind: -chances[kind])[:2]
    trust = {
        "silent": 1.0,
        "dialog": (1 + _agreement(for_speech)) / 2,
        "music": (1 + _agreement(for_music)) / 2 * (1 - _logistic(_votes_for_hidden_speech(features))),
        "ambiance": (1 + _agreement(for_music)) / 2,
    }
    return AudioEvidence(
        audio_class=name,
        confidence=(chances[name] - chances[second]) * trust[name],
        loudness=min(1.0, max(0.0, 1 - level / SILENCE_DBFS)),
    )


def _votes_for_speech(features: AudioFeatures) -> tuple[float, ...]:
    return (
        RMS_VARIATION.vote(_loudness_variation(features)),
        CENTROID_VARIATION.vote(_ratio(features.spectral_centroid_std, features.spectral_centroid_mean)),
        COARSE_TIMBRE.vote(_coarse_change(features.mfcc_std)),
        PLAIN_CHROMA.vote(_contrast(features)),
    )


def _votes_for_music(features: AudioFeatures) -> tuple[float, ...]:
    return (
        FINE_TIMBRE.vote(_timbre_change(features.mfcc_std)),
        CHROMA_CONTRAST.vote(_contrast(features)),
        ZERO_CROSSINGS.vote(features.zero_crossing_rate_mean),
    )


def _votes_for_hidden_speech(features: AudioFeatures) -> float:
    return (
        HIDDEN_VARIATION.vote(_loudness_variation(features))
        + HIDDEN_CHROMA.vote(_contrast(features))
        + HIDDEN_TIMBRE.vote(_coarse_change(features.mfcc_std))
    )


def _agreement(votes: Sequence[float]) -> float:
    """1 when all votes point the same way, 0 when they cancel out; 1 without any."""
    total = sum(abs(vote) for vote in votes)
    return abs(sum(votes)) / total if total else 1.0


def _loudness_variation(features: AudioFeatures) -> float | None:
    """Standard deviation over mean of the RMS, as it would be in a longer clip."""
    ratio = _ratio(features.rms_energy_std, features.rms_energy_mean)
    return None if ratio is None else ratio * math.pow(_shortness(features, SECONDS_FOR_PAUSES), PAUSES_EXPONENT)


def _shortness(features: AudioFeatures, enough: float) -> float:
    """1 for a clip of as many seconds or more, or of unknown length; else the share of them that there is."""
    return min(1.0, features.duration / enough) if features.duration else 1.0


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def _timbre_change(mfcc_std: Sequence[float] | None) -> float | None:
    """Mean standard deviation of the MFCCs but the first, which is loudness."""
    return None if mfcc_std is None else _mean(mfcc_std[1:])


def _coarse_change(mfcc_std: Sequence[float] | None) -> float | None:
    """The same of the four that tell the broad shape of the spectrum: vowels against hisses."""
    return None if mfcc_std is None else _mean(mfcc_std[1:5])


def _contrast(features: AudioFeatures) -> float | None:
    """Standard deviation over mean of the twelve pitch classes: 0 for flat noise, large for a few clear tones."""
    chroma = features.chroma_mean
    if chroma is None or not max(chroma):
        return None
    shares = [value / max(chroma) for value in chroma]
    mean = _mean(shares)
    spread = math.sqrt(_mean([(share - mean) ** 2 for share in shares]))
    return spread / mean * math.pow(_shortness(features, SECONDS_FOR_PITCHES), PITCHES_EXPONENT)


def _mean(values: Sequence[float]) -> float:
    # Divided before they are added: any numbers that the wire lets in have a mean that is a number.
    return sum(value / len(values) for value in values)


def _logistic(log_odds: float) -> float:
    """1 / (1 + exp(-x)), without overflow."""
    return (1 + math.tanh(log_odds / 2)) / 2
