"""Edits the boxes of an MP4 (ISO 14496-12) whose index lies behind the pictures, so that no offset changes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts")


def change(data: bytes, kind: bytes, new: Callable[[bytes], bytes]) -> bytes:
    """Give the first box of a kind another content, and the boxes around it their new sizes."""
    changed, found = _change(data, kind, new)
    assert found, f"no box {kind!r}"
    return changed


def edit_list(edits: Sequence[tuple[int, int]]) -> bytes:
    """The content of an `elst` box: each edit's length in the film's ticks, and its start in the track's."""
    return struct.pack(">II", 0, len(edits)) + b"".join(struct.pack(">IiHH", *edit, 1, 0) for edit in edits)


def _change(data: bytes, kind: bytes, new: Callable[[bytes], bytes]) -> tuple[bytes, bool]:
    at = 0
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + size]
        found = name == kind
        if found:
            body = new(body)
        elif name in PARENTS:
            body, found = _change(body, kind, new)
        if found:
            return data[:at] + struct.pack(">I4s", len(body) + 8, name) + body + data[at + size :], True
        at += size
    return data, False
