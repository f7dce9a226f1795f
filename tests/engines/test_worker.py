"""An engine process: what it does beside a batch."""

from __future__ import annotations

from itertools import islice
from multiprocessing import Pipe

import pytest

from engines import worker
from engines.messages import send
from engines.stations import OneStep

BATCHES = 3


@pytest.mark.parametrize(
    ("on_gpu", "seconds", "times"),
    [(False, 0, BATCHES), (False, 3600, 1), (True, 0, 0)],
    ids=["after each batch", "not again so soon", "not on a GPU"],
)
def test_memory_that_batches_leave_is_returned(
    monkeypatch: pytest.MonkeyPatch, seconds: float, times: int, *, on_gpu: bool
) -> None:
    returned: list[bool] = []
    monkeypatch.setattr(worker, "TRIM_SECONDS", seconds)
    monkeypatch.setattr(worker, "return_freed_memory", lambda: returned.append(True))
    server, engine = Pipe()
    for number in range(BATCHES):
        send(server, worker.Work(number, (), 0))
    timed = worker._Timed(OneStep(lambda _: []))
    jobs = worker._jobs(engine, None, timed, worker._Sender(engine, timed, None), on_gpu=on_gpu)
    for job in islice(jobs, BATCHES):
        job.done(())
    assert len(returned) == times
