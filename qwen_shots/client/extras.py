"""Packages that only some commands need, and that a user installs when they do."""

from __future__ import annotations

from typing import Any

from qwen_shots.errors import InvalidInput


def opentimelineio() -> Any:
    """The package OpenTimelineIO.

    Raises:
        InvalidInput: it is not installed.
    """
    try:
        import opentimelineio
    except ModuleNotFoundError:
        raise InvalidInput("OTIO timelines need OpenTimelineIO: pip install opentimelineio") from None
    return opentimelineio
