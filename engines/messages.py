"""Messages between the server and an engine process. What is large in them travels beside them, not inside.

A full batch holds 200 MB of pictures. Pickled into one piece they are copied while nothing else in the process may
run: /health would wait 0.15 s for it. Beside the message (PEP 574) they go out from where they lie, and the
interpreter's lock is let go meanwhile; and those that lie in memory that both processes see do not go at all.
"""

from __future__ import annotations

import pickle
from multiprocessing.connection import Connection
from typing import Any

from engines.arena import Arena, ArenaReader, Place

PROTOCOL = 5  # the first that knows of buffers beside


def send(pipe: Connection, message: object, arena: Arena | None = None) -> None:
    """Send one message. Of several threads one at a time may.

    Args:
        pipe: the way to the other process.
        message: anything that can be pickled.
        arena: where parts of it may lie; the other process then needs its reader.

    Raises:
        OSError: the other end is closed.
    """
    beside: list[pickle.PickleBuffer] = []
    inside = pickle.dumps(message, PROTOCOL, buffer_callback=beside.append)
    contents = [buffer.raw() for buffer in beside]
    places = [arena.find(content) if arena else None for content in contents]
    pipe.send_bytes(pickle.dumps((places, inside), PROTOCOL))
    for content, place in zip(contents, places, strict=True):
        if place is None:
            pipe.send_bytes(content)


def receive(pipe: Connection, arena: ArenaReader | None = None) -> Any:
    """Wait for a message of `send`. Arrays in it are not to be written to.

    Raises:
        EOFError: the other end is closed.
        OSError: this end is, or the other one was closed in the middle of a message.
    """
    places, inside = pickle.loads(pipe.recv_bytes())  # noqa: S301 - from our own process
    beside = [pipe.recv_bytes() if place is None else _look_up(arena, place) for place in places]
    return pickle.loads(inside, buffers=beside)  # noqa: S301 - likewise


def _look_up(arena: ArenaReader | None, place: Place) -> memoryview:
    assert arena is not None, "the other process has an arena, and this one not its reader"
    return arena.at(place)
