"""Which version this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """As it was installed."""
    try:
        return version("qwen-shots")
    except PackageNotFoundError:
        return "from a folder of the source"
