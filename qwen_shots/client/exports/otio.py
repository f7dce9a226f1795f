"""OpenTimelineIO timelines: a clip a shot, its scores as metadata and its caption as a marker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qwen_shots.client.exports.cutlist import CutList, Piece
from qwen_shots.client.exports.text import one_line
from qwen_shots.client.extras import opentimelineio

if TYPE_CHECKING:
    from opentimelineio.opentime import RationalTime, TimeRange
    from opentimelineio.schema import Clip, ExternalReference


def to_otio(cuts: CutList) -> str:
    """The timeline as OpenTimelineIO's JSON.

    Raises:
        InvalidInput: OpenTimelineIO is not installed.
    """
    schema = opentimelineio().schema
    timeline = schema.Timeline(
        one_line(cuts.title),
        global_start_time=_time(cuts, cuts.record_start),
        metadata={"qwen_shots": {"model": cuts.film.model}},
    )
    track = schema.Track("V1", kind=schema.TrackKind.Video)
    end = 0
    for piece in cuts.pieces:
        if piece.record > end:
            track.append(schema.Gap(source_range=_range(cuts, 0, piece.record - end)))
        track.append(_clip(cuts, piece))
        end = piece.record + piece.length
    timeline.tracks.append(track)
    return str(timeline.to_json_string(indent=2))


def _clip(cuts: CutList, piece: Piece) -> Clip:
    from opentimelineio import schema

    told = _metadata(piece)
    source = _range(cuts, cuts.source_start + piece.source, piece.length)
    marker = schema.Marker(
        name=one_line(piece.shot.caption or f"Shot {piece.shot.number}"),
        marked_range=_range(cuts, cuts.source_start + piece.source, 0),
        metadata={"qwen_shots": told},
    )
    name = piece.shot.name or f"Shot {piece.shot.number}"
    return schema.Clip(one_line(name), _media(cuts), source, metadata={"qwen_shots": told}, markers=[marker])


def _metadata(piece: Piece) -> dict[str, Any]:
    shot = piece.shot
    # OpenTimelineIO ends a text at a zero byte.
    caption = None if shot.caption is None else one_line(shot.caption)
    return {
        "shot": shot.number,
        "pictures": [shot.first_frame, shot.end_frame],
        "caption": caption,
        "audio": shot.audio_class,
        "scores": dict(shot.scores),
    }


def _media(cuts: CutList) -> ExternalReference:
    from opentimelineio import schema

    whole = _range(cuts, cuts.source_start, cuts.film_length)
    return schema.ExternalReference(cuts.film.path.absolute().as_uri(), whole)


def _range(cuts: CutList, start: int, length: int) -> TimeRange:
    from opentimelineio.opentime import TimeRange

    return TimeRange(_time(cuts, start), _time(cuts, length))


def _time(cuts: CutList, frames: int) -> RationalTime:
    from opentimelineio.opentime import RationalTime

    return RationalTime(frames, float(cuts.timebase.rate))
