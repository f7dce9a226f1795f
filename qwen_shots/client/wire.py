"""A film's shots as the wire wants them."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path

from qwen_shots import schemas
from qwen_shots.client.frames import Still, stills_of
from qwen_shots.client.shots import Shot, Span
from qwen_shots.client.sound import features_of


def wire_shots(path: Path, shots: Sequence[Shot]) -> Iterator[schemas.Shot]:
    """Frames and sound features of each shot, made as they are asked for.

    Args:
        path: the film file.
        shots: in order of time, without overlaps; the first one's name on the wire is 1.

    Raises:
        FilmError: the film can't be read, or ends before a shot does.
    """
    pieces = zip(shots, stills_of(path, shots), features_of(path, shots), strict=True)
    for shot_id, (shot, stills, features) in enumerate(pieces, start=1):
        yield wire_shot(shot_id, shot, stills, features)


def wire_shot(
    shot_id: int, span: Span, stills: Sequence[Still], features: schemas.AudioFeatures | None
) -> schemas.Shot:
    """One shot under a name, with its frames and how it sounds."""
    return schemas.Shot(
        shot_id=shot_id,
        images=[base64.b64encode(still.jpeg).decode() for still in stills],
        audio_features=features,
        start_time=span.start,
        end_time=span.end,
        duration=span.duration,
    )
