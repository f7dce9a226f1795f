"""Says how each shot of a film feels; `analyze` does so for a whole film. Without torch.

    from qwen_shots import analyze

    for shot in analyze("film.mp4", "http://localhost:8000", key="KEY"):
        print(shot.start, shot.caption, shot.scores)

The wire, pictures, sound, scores and their fusion are modules that the server uses too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwen_shots.client.analysis import analyze, analyze_async
    from qwen_shots.client.store import open_store

__all__ = ["analyze", "analyze_async", "open_store"]

# Imported when they are used: what decodes films is large, and the server has no use for it.
_PLACES = {
    "analyze": "qwen_shots.client.analysis",
    "analyze_async": "qwen_shots.client.analysis",
    "open_store": "qwen_shots.client.store",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
