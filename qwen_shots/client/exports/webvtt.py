"""Captions as WebVTT (W3C), to be seen over the film."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from qwen_shots.client.exports.text import one_line
from qwen_shots.client.moments import milliseconds
from qwen_shots.client.store import ShotRecord


def to_webvtt(shots: Sequence[ShotRecord], model: str | None = None) -> str:
    """A cue a captioned shot, in order of time, named by the shot's number; a note names the model."""
    ordered = sorted(shots, key=lambda shot: shot.start)
    head = ["WEBVTT\n", f"NOTE Model: {escape(one_line(model), quote=False)}\n"] if model else ["WEBVTT\n"]
    return "\n".join([*head, *(_cue(shot, text) for shot in ordered if (text := one_line(shot.caption or "")))])


def _cue(shot: ShotRecord, caption: str) -> str:
    start = milliseconds(shot.start)
    # A cue that ends with its start would never be seen.
    end = max(start + 1, milliseconds(shot.end))
    return f"{shot.number}\n{_clock(start)} --> {_clock(end)}\n{escape(caption, quote=False)}\n"


def _clock(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:03}"
