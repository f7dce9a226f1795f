"""Waits until an engine has loaded, and says in the log how that went."""

from __future__ import annotations

import asyncio
import logging

from engines.base import Engine, Status

log = logging.getLogger("qwen_server")

POLL_SECONDS = 0.2


async def until_loaded(engine: Engine) -> bool:
    """Wait; returns whether the engine can be used, and else its `failure` says why not."""
    while engine.status not in {Status.HEALTHY, Status.FAILED}:  # degraded is one of several GPUs, before the others
        await asyncio.sleep(POLL_SECONDS)
    if engine.status is Status.FAILED:
        log.error("%s", engine.failure)
        return False
    log.info("healthy: %s on %s", engine.info.model, engine.info.device)
    return True
