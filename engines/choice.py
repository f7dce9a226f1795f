"""Which engine the settings name."""

from __future__ import annotations

from engines.base import Engine
from engines.local import LocalEngine
from engines.remote import RemoteEngine
from settings import Settings


def make_engine(settings: Settings) -> Engine:
    """The engine that `model.engine` names, not started yet.

    Raises:
        InvalidSettings: the key of the endpoints can't be one.
    """
    return RemoteEngine(settings) if settings.model.engine == "remote" else LocalEngine(settings)
