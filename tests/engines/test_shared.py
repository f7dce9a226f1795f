"""An engine in another process, when that process is gone."""

from __future__ import annotations

import asyncio
import multiprocessing

import numpy as np
import pytest

from engines.base import ShotPictures
from engines.shared import SharedEngine
from qwen_shots.errors import EngineLost
from tests.helpers import PATIENCE_SECONDS

SHOT = ShotPictures((np.zeros((28, 28, 3), np.uint8),))


def test_nobody_waits_for_an_engine_whose_process_is_gone() -> None:
    async def scenario() -> None:
        ours, theirs = multiprocessing.Pipe()
        engine = SharedEngine(ours, "a model", lambda: b"")
        await engine.start()
        early = asyncio.create_task(engine.look(SHOT))
        await asyncio.sleep(0)
        theirs.close()
        for work in (early, engine.look(SHOT), engine.counts()):
            with pytest.raises(EngineLost):
                await asyncio.wait_for(work, PATIENCE_SECONDS)
        await engine.close()

    asyncio.run(scenario())
