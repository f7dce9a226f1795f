"""Messages between the server and an engine process. What is large in them travels beside them, not inside.

A full batch holds 200 MB of pictures. Pickled into one piece they are copied while nothing else in the process may
run: /health would wait 0.15 s for it. Beside the message (PEP 574) they go out from where they lie, and the
interpreter's lock is let go meanwhile.
"""

from __future__ import annotations

import pickle
from multiprocessing.connection import Connection
from typing import Any

PROTOCOL = 5  # the first that knows of buffers beside
COUNT_BYTES = 4


def send(pipe: Connection, message: object) -> None:
    """Send one message. Of several threads one at a time may.

    Raises:
        OSError: the other end is closed.
    """
    beside: list[pickle.PickleBuffer] = []
    inside = pickle.dumps(message, PROTOCOL, buffer_callback=beside.append)
    pipe.send_bytes(len(beside).to_bytes(COUNT_BYTES, "big") + inside)
    for buffer in beside:
        pipe.send_bytes(buffer.raw())


def receive(pipe: Connection) -> Any:
    """Wait for a message of `send`. Arrays in it can't be written to.

    Raises:
        EOFError: the other end is closed.
        OSError: this end is, or the other one was closed in the middle of a message.
    """
    text = memoryview(pipe.recv_bytes())
    beside = [pipe.recv_bytes() for _ in range(int.from_bytes(text[:COUNT_BYTES], "big"))]
    return pickle.loads(text[COUNT_BYTES:], buffers=beside)  # noqa: S301 - from our own process
