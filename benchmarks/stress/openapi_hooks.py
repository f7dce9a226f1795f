"""What Schemathesis can't read out of a schema: what a picture is, and how two fields hang together.

Schemathesis imports this module (`SCHEMATHESIS_HOOKS`).
"""

from __future__ import annotations

from typing import Any

import schemathesis
from hypothesis import strategies

from qwen_shots.schemas import PICTURE_FORMAT
from tests.helpers import encode, scene

PICTURES = [encode(scene(seed, 28, 28), kind) for seed, kind in enumerate(("JPEG", "PNG", "WEBP"))]

schemathesis.openapi.format(PICTURE_FORMAT, strategies.sampled_from(PICTURES))


@schemathesis.hook
def before_call(_: Any, case: Any, __: Any) -> None:
    """Let a shot that is valid field by field be valid as a whole."""
    if not isinstance(case.body, dict):
        return
    shots = case.body.get("shots")
    taken: set[Any] = set()
    for number, shot in enumerate(shots if isinstance(shots, list) else [case.body]):
        if isinstance(shot, dict):
            _end_after_start(shot)
            _name_once(shot, number, taken)


def _end_after_start(shot: dict[str, Any]) -> None:
    start, end = shot.get("start_time"), shot.get("end_time")
    if isinstance(start, (int, float)) and isinstance(end, (int, float)) and 0 <= end < start:
        shot["start_time"], shot["end_time"] = end, start


def _name_once(shot: dict[str, Any], number: int, taken: set[Any]) -> None:
    name = shot.get("shot_id")
    if not isinstance(name, (int, str)):
        return
    if name in taken:
        shot["shot_id"] = f"shot {number}"
    taken.add(shot["shot_id"])
