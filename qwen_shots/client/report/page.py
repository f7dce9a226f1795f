"""The report's page: what a film's folder knows, laid out.

Everything that comes from a film or a server goes through Jinja's escaping. The page's own policy (CSP) lets only the
script below run and fetches nothing, so that even a hole in that would stay shut.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any

from markupsafe import Markup

from qwen_shots.client.exports.cutlist import frame_of, source_start, timebase_of
from qwen_shots.client.exports.text import one_line
from qwen_shots.client.moments import milliseconds
from qwen_shots.client.report import curves
from qwen_shots.client.selection import Wanted, score_names, select
from qwen_shots.client.store import FilmRecord, ShotRecord
from qwen_shots.client.timecode import InvalidTimecode, usual_rate

# The best of each attribute: at most so many, and of a short film no more than a quarter of its shots, which are all
# below anyway.
MOST_BEST = 10
BEST_SHARE = 4
FILMSTRIP = 15  # the narrow page shows the middle one of each three
SOUNDS = ("dialog", "music", "ambiance", "silent")
FIRST_HUE = 285
TICK_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
MOST_TICKS = 7


@dataclass(frozen=True, slots=True)
class Report:
    """What a page is made of.

    Attributes:
        film: the film.
        shots: all that are known, in order of time.
        complete: whether these are all of the film's.
        address: where the page's links find the film.
        made: by which version, and when.
    """

    film: FilmRecord
    shots: Sequence[ShotRecord]
    complete: bool
    address: str
    made: str


@dataclass(frozen=True, slots=True)
class Row:
    """An attribute, as it is drawn."""

    name: str
    label: str
    hue: int
    line: str
    area: str
    smooth: str
    best: Sequence[ShotRecord]


def to_html(report: Report) -> str:
    """The page."""
    from jinja2 import Environment, StrictUndefined

    texts = resources.files(__package__)
    script = texts.joinpath("page.js").read_text(encoding="utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters |= {
        "line": one_line,
        "clock": clock,
        "moment": _moment,
        "scores": _scores,
        "frames": partial(_frames, report.film),
        "words": _words,
    }
    return page.from_string(texts.joinpath("page.html").read_text(encoding="utf-8")).render(
        report=report,
        film=report.film,
        shots=report.shots,
        analysed=[shot for shot in report.shots if shot.analysed],
        failed=[shot for shot in report.shots if shot.failed],
        rate=float(usual_rate(report.film.frame_rate)),
        rows=list(_rows(report)),
        best_count=_best_count(report),
        pictures=list(_pictures(report.shots)),
        sounds=list(_sounds(report)),
        heard=any(shot.audio_class for shot in report.shots),
        ticks=_ticks(report.film.duration),
        filmstrip=_filmstrip(report),
        style=Markup(texts.joinpath("page.css").read_text(encoding="utf-8")),  # noqa: S704 # ours
        script=Markup(script),  # noqa: S704 # ours
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def clock(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _moment(seconds: float) -> str:
    """A time in a media fragment (`film.mp4#t=2.500`)."""
    return f"{milliseconds(seconds) / 1000:.3f}"


def _rows(report: Report) -> Iterator[Row]:
    names = score_names(report.shots)
    for place, (name, by) in enumerate(names.items()):
        steps = curves.steps_of(report.shots, name, report.film.duration)
        yield Row(
            name=name,
            label=_words(name),
            hue=round(FIRST_HUE + 360 * place / len(names)) % 360,
            line=curves.line_path(steps),
            area=curves.area_path(steps),
            smooth=curves.smooth_path(steps),
            best=select(report.shots, report.film.duration, Wanted(by=by))[: _best_count(report)],
        )


def _sounds(report: Report) -> Iterator[dict[str, Any]]:
    """Each class with its share of the film's time and the pieces in which it is heard."""
    length = max(report.film.duration, 1e-9)
    for name in SOUNDS:
        heard = [shot for shot in report.shots if shot.audio_class == name]
        pieces = [(shot.start / length, shot.duration / length) for shot in heard]
        yield {"name": name, "share": sum(share for _, share in pieces), "pieces": pieces}


def _ticks(seconds: float) -> list[tuple[float, str]]:
    """Round times: share of the film and text."""
    step = next((step for step in TICK_STEPS if seconds / step <= MOST_TICKS), TICK_STEPS[-1])
    return [(time / seconds, clock(time)) for time in range(0, int(seconds) + 1, step)] if seconds else []


def _best_count(report: Report) -> int:
    return min(MOST_BEST, sum(shot.analysed for shot in report.shots) // BEST_SHARE)


def _filmstrip(report: Report) -> list[ShotRecord | None]:
    """For equal parts of the film's time, the shot in the middle of each; None where it is not known."""
    if not any(shot.thumbnail for shot in report.shots):
        return []
    middles = [report.film.duration * (part + 0.5) / FILMSTRIP for part in range(FILMSTRIP)]
    return [next((shot for shot in report.shots if shot.start <= time < shot.end), None) for time in middles]


def _frames(film: FilmRecord, shot: ShotRecord) -> str:
    """Which frames a shot has, behind the first one's timecode."""
    frames = f"frames {shot.first_frame} to {shot.end_frame - 1}"
    base = timebase_of(film)
    try:
        first = source_start(film, base) + frame_of(film, shot.start, base)
    except InvalidTimecode:  # the film's own, in a folder of an earlier version
        return frames
    return f"{base.text(first)}, {frames}"


def _pictures(shots: Sequence[ShotRecord]) -> Iterator[tuple[str, str]]:
    """Each picture once: the classes that show it, and its address."""
    places: dict[bytes, list[str]] = {}
    for shot in shots:
        if shot.thumbnail:
            places.setdefault(shot.thumbnail, []).append(f".p{shot.number}")
    for jpeg, classes in places.items():
        yield ", ".join(classes), f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _scores(shot: ShotRecord, rows: Sequence[Row]) -> str:
    return json.dumps([shot.scores.get(row.name) for row in rows])


def _words(name: str) -> str:
    return one_line(name.replace("_", " "))
