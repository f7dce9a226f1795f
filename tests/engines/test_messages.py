"""What goes between the server and an engine process: whole, and without a second copy of its pictures."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
import tracemalloc
from collections.abc import Iterator
from multiprocessing.connection import Connection

import numpy as np
import pytest

from engines.base import ShotPictures
from engines.messages import receive, send
from engines.worker import Work

MIB = 2**20


@pytest.fixture
def pipe() -> Iterator[tuple[Connection, Connection]]:
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        yield ours, theirs


def picture(number: int, height: int = 336, width: int = 588) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(number).integers(256, size=(height, width, 3), dtype=np.uint8)


def test_what_is_sent_arrives_in_order(pipe: tuple[Connection, Connection]) -> None:
    ours, theirs = pipe
    works = [Work(n, (ShotPictures((picture(n), picture(n + 1, 28, 28))),) * n, 8 * n) for n in range(1, 5)]
    sent: list[object] = [works[0], None, works[1], ("a", 1), works[2], works[3]]

    def send_all() -> None:
        for message in sent:
            send(ours, message)

    sender = threading.Thread(target=send_all)
    sender.start()
    arrived = [receive(theirs) for _ in sent]
    sender.join()
    assert [type(message) for message in arrived] == [type(message) for message in sent]
    assert arrived[3] == ("a", 1)
    for work, came in zip(works, [arrived[0], arrived[2], arrived[4], arrived[5]], strict=True):
        assert came.number == work.number
        for shot, other in zip(work.shots, came.shots, strict=True):
            for here, there in zip(shot.pictures, other.pictures, strict=True):
                np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize("view", [np.s_[::2, ::3], np.s_[:, ::-1], np.s_[:0]])
def test_arrays_that_do_not_lie_in_one_piece(pipe: tuple[Connection, Connection], view: tuple[slice, ...]) -> None:
    part = picture(1, 32, 32)[view]
    send(pipe[0], part)
    np.testing.assert_array_equal(receive(pipe[1]), part)


def test_pictures_are_not_copied_on_their_way_out(pipe: tuple[Connection, Connection]) -> None:
    """Copies are made while nothing else of the process may run."""
    work = Work(1, (ShotPictures(tuple(picture(n) for n in range(16))),), 64)
    assert len(pickle.dumps(work)) > 8 * MIB

    def forget_all() -> None:
        for _ in range(17):
            pipe[1].recv_bytes()

    reader = threading.Thread(target=forget_all)
    reader.start()
    tracemalloc.start()
    try:
        send(pipe[0], work)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        reader.join()
    assert peak < 3 * MIB  # the reader's one picture is counted too


def test_the_other_end_is_closed(pipe: tuple[Connection, Connection]) -> None:
    ours, theirs = pipe
    theirs.close()
    with pytest.raises(EOFError):
        receive(ours)
    with pytest.raises(OSError):
        send(ours, picture(1))


def test_the_other_end_is_closed_in_the_middle_of_a_message(pipe: tuple[Connection, Connection]) -> None:
    ours, theirs = pipe
    theirs.send_bytes(pickle.dumps(([None], pickle.dumps(1))))  # says that something comes beside it
    theirs.close()
    with pytest.raises((EOFError, OSError)):
        receive(ours)
