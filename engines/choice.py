"""Which engine the settings name."""

from __future__ import annotations

from engines.base import Engine, Observer
from engines.local import LocalEngine
from engines.remote import RemoteEngine
from settings import Settings


def make_engine(settings: Settings, observer: Observer | None = None) -> Engine:
    """The engine that `model.engine` names, not started yet; `observer` is told what it does.

    Raises:
        InvalidSettings: the key of the endpoints can't be one.
    """
    return RemoteEngine(settings, observer) if settings.model.engine == "remote" else LocalEngine(settings, observer)
