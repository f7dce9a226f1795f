"""Pictures in memory that server and engine process share: seen there, free again in time, and never two in a place."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import numpy as np
import pytest

from engines.arena import Arena, ArenaReader
from engines.base import Picture, ShotPictures
from engines.messages import receive, send
from engines.worker import Work

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="only Linux has memory without a name")

SLOT = 28 * 28 * 3


def picture(number: int, side: int = 28) -> Picture:
    return np.random.default_rng(number).integers(256, size=(side, side, 3), dtype=np.uint8)


@contextmanager
def arena_of(slots: int, lasting: int | None = None, picture_bytes: int = SLOT) -> Iterator[Arena]:
    arena = Arena()
    arena.open(slots, picture_bytes, slots if lasting is None else lasting)
    try:
        yield arena
    finally:
        arena.close()


def sums(pipe: Connection, arena: ArenaReader) -> None:
    """A process that answers messages by the sum of each picture, and whether it came through the pipe."""
    while (work := receive(pipe, arena)) is not None:
        pipe.send([int(each.sum(dtype=np.int64)) for shot in work.shots for each in shot.pictures])


def place(arena: Arena, kept: Picture) -> tuple[int, int] | None:
    return arena.find(memoryview(kept.reshape(-1)))  # type: ignore[arg-type] # numpy tells no buffers before Python 3.12


def test_another_process_sees_what_is_kept() -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    # More pictures than fit, of several sizes, and one that is too large.
    pictures = [picture(number, side) for number, side in enumerate((28, 14, 28, 56, 1, 28, 28))]
    with arena_of(4) as arena, ours:
        kept = tuple(map(arena.keep, pictures))
        assert [place(arena, each) is not None for each in kept] == [True, True, True, False, True, False, False]
        process = context.Process(target=sums, args=(theirs, arena), daemon=True)
        process.start()
        theirs.close()
        for shots in ((ShotPictures(kept),), (ShotPictures(kept[:2]), ShotPictures(kept[4:])), (ShotPictures(()),)):
            send(ours, Work(1, shots, 4), arena)
            expected = [int(each.sum(dtype=np.int64)) for shot in shots for each in shot.pictures]
            assert ours.recv() == expected
        send(ours, None)
        process.join()
        assert process.exitcode == 0


def test_what_is_kept_does_not_go_through_the_pipe() -> None:
    ours, theirs = multiprocessing.Pipe()
    with arena_of(2) as arena, ours, theirs:
        inside, outside = arena.keep(picture(1)), picture(2)
        send(ours, [inside, outside], arena)
        theirs.recv_bytes()
        assert theirs.recv_bytes() == outside.tobytes()
        assert not theirs.poll()


def test_it_is_a_copy_with_the_same_numbers() -> None:
    with arena_of(1) as arena:
        whole = picture(3, 56)
        part = whole[::2, ::-2]  # not in one piece
        kept = arena.keep(part)
        assert kept is not part
        np.testing.assert_array_equal(kept, part)
        whole[:] = 0
        assert kept.any()


def test_a_place_is_free_when_nobody_holds_the_picture() -> None:
    with arena_of(1) as arena:
        kept = arena.keep(picture(1))
        view = kept[4:, ::2]
        del kept
        waiting = picture(2)
        assert arena.keep(waiting) is waiting, "a view still holds the place"
        np.testing.assert_array_equal(view, picture(1)[4:, ::2])
        del view
        assert arena.keep(waiting) is not waiting


def test_no_two_pictures_share_a_place() -> None:
    """Pictures come and go in any order; each that is held stays what it was."""
    order = random.Random(1)
    with arena_of(16, lasting=4) as arena:
        held: dict[int, Picture] = {}
        inside = 0
        for number in range(2000):
            if held and order.random() < 0.5:
                gone = order.choice(list(held))
                np.testing.assert_array_equal(held.pop(gone), picture(gone))
            held[number] = arena.keep(picture(number))
            inside += place(arena, held[number]) is not None
            if len(held) > 20:
                held.pop(min(held))
        assert inside > 500


def test_places_beyond_the_lasting_ones_give_their_memory_back() -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    with arena_of(64, lasting=8, picture_bytes=64 * page) as arena:
        assert arena._file is not None
        large = np.ones((64, page // 3, 3), np.uint8)
        kept = [arena.keep(large) for _ in range(64)]
        full = os.fstat(arena._file).st_blocks
        del kept
        gc.collect()
        left = os.fstat(arena._file).st_blocks
        assert full > 7 * left > 0
        np.testing.assert_array_equal(arena.keep(large), large)


def test_the_lasting_places_are_taken_first() -> None:
    with arena_of(8, lasting=2) as arena:
        kept = [arena.keep(picture(number)) for number in range(2)]
        firsts = {place(arena, each) for each in kept}
        others = [arena.keep(picture(number)) for number in range(2, 5)]
        del kept
        again = [arena.keep(picture(number)) for number in range(2)]
        assert {place(arena, each) for each in again} == firsts
        assert len({place(arena, each) for each in [*again, *others]}) == 5


def test_without_such_memory_pictures_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: str) -> int:
        raise PermissionError("a sandbox")

    def keeps_nothing() -> bool:
        with arena_of(4) as arena:
            sent = picture(1)
            return arena.keep(sent) is sent and place(arena, sent) is None

    monkeypatch.setattr(os, "memfd_create", refused)
    assert keeps_nothing()
    monkeypatch.delattr(os, "memfd_create")
    assert keeps_nothing()


def test_before_it_is_open_and_after_it_is_closed() -> None:
    arena = Arena()
    sent = picture(1)
    assert arena.keep(sent) is sent
    arena.open(1, SLOT, 1)
    kept = arena.keep(sent)
    gone = weakref.ref(arena)
    arena.close()
    arena.close()
    del arena
    np.testing.assert_array_equal(kept, sent)  # who holds a picture needs nothing else
    del kept
    gc.collect()
    assert gone() is None
