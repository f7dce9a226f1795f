"""Final Cut Pro's XML, with times as fractions of a second.

In version 1.8, the last in which an asset names its file itself; later programs read it. OpenTimelineIO's adapter
(1.0) takes 23.976 frames a second for 23, so it reads these in the tests, at whole rates, and writes none.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from qwen_shots.client.exports.cutlist import CutList, Piece
from qwen_shots.client.exports.text import one_line

VERSION = "1.8"
FORMAT, ASSET = "r1", "r2"


def to_fcpxml(cuts: CutList) -> str:
    """One project in one event, a clip a shot with its caption as note and marker."""
    root = Element("fcpxml", version=VERSION)
    _resources(root, cuts)
    title = one_line(cuts.title)
    project = SubElement(SubElement(root, "event", name=title), "project", name=title)
    sequence = SubElement(
        project,
        "sequence",
        format=FORMAT,
        duration=_time(cuts, cuts.length),
        tcStart=_time(cuts, cuts.record_start),
        tcFormat=_count(cuts),
    )
    spine = SubElement(sequence, "spine")
    end = 0
    for piece in cuts.pieces:
        if piece.record > end:
            _gap(spine, cuts, end, piece.record)
        _clip(spine, cuts, piece)
        end = piece.record + piece.length
    indent(root)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n'
    return f"{head}{tostring(root, encoding='unicode')}\n"


def _resources(root: Element, cuts: CutList) -> None:
    resources = SubElement(root, "resources")
    film = cuts.film
    size = {"width": str(film.width), "height": str(film.height)}
    SubElement(resources, "format", {"id": FORMAT, "frameDuration": _time(cuts, 1)} | size)
    asset = {
        "id": ASSET,
        "name": one_line(film.path.stem),
        "src": film.path.absolute().as_uri(),
        "start": _time(cuts, cuts.source_start),
        "duration": _time(cuts, cuts.film_length),
        "hasVideo": "1",
        "format": FORMAT,
    }
    if any(piece.shot.audio_class for piece in cuts.pieces):
        asset |= {"hasAudio": "1"}
    described = SubElement(resources, "asset", asset)
    if film.model:
        SubElement(SubElement(described, "metadata"), "md", key="qwen-shots.model", value=one_line(film.model))


def _gap(spine: Element, cuts: CutList, start: int, end: int) -> None:
    length = _time(cuts, end - start)
    SubElement(spine, "gap", name="Gap", offset=_time(cuts, cuts.record_start + start), start="0s", duration=length)


def _clip(spine: Element, cuts: CutList, piece: Piece) -> None:
    shot = piece.shot
    start = _time(cuts, cuts.source_start + piece.source)
    clip = SubElement(
        spine,
        "asset-clip",
        ref=ASSET,
        offset=_time(cuts, cuts.record_start + piece.record),
        name=one_line(shot.name or f"Shot {shot.number}"),
        start=start,
        duration=_time(cuts, piece.length),
        tcFormat=_count(cuts),
    )
    if not shot.caption:
        return
    caption = one_line(shot.caption)
    scores = ", ".join(f"{one_line(name)} {score:.4f}" for name, score in shot.scores.items())
    SubElement(clip, "note").text = caption
    SubElement(clip, "marker", start=start, duration=_time(cuts, 1), value=caption, note=scores)


def _count(cuts: CutList) -> str:
    return "DF" if cuts.timebase.drop else "NDF"


def _time(cuts: CutList, frames: int) -> str:
    """Frames as seconds: `1001/24000s`, `5s`."""
    return f"{cuts.timebase.seconds_at(frames)}s"
