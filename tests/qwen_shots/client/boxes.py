"""Edits the boxes of an MP4 (ISO 14496-12) whose index lies behind the pictures, so that no offset changes."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

# Boxes that hold boxes, and how many bytes come before those.
PARENTS = {b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0, b"edts": 0, b"stsd": 8, b"sowt": 28}
LONGER_BY_VERSION = 16  # the header of PCM sound in QuickTime


def change(data: bytes, kind: bytes, new: Callable[[bytes], bytes]) -> bytes:
    """Give the first box of a kind another content, and the boxes around it their new sizes."""
    changed, found = _change(data, kind, new)
    assert found, f"no box {kind!r}"
    return changed


def edit_list(edits: Sequence[tuple[int, int]]) -> bytes:
    """The content of an `elst` box: each edit's length in the film's ticks, and its start in the track's."""
    return struct.pack(">II", 0, len(edits)) + b"".join(struct.pack(">IiHH", *edit, 1, 0) for edit in edits)


def channels(tag: int, labels: Sequence[int] = ()) -> bytes:
    """The content of a `chan` box (QuickTime): a layout's tag, or 0 and a label for each channel."""
    described = b"".join(struct.pack(">IIIII", label, 0, 0, 0, 0) for label in labels)
    return struct.pack(">IIII", 0, tag, 0, len(labels)) + described


def _change(data: bytes, kind: bytes, new: Callable[[bytes], bytes]) -> tuple[bytes, bool]:
    at = 0
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        assert size >= 8, name
        body = data[at + 8 : at + size]
        found = name == kind
        if found:
            body = new(body)
        elif name in PARENTS:
            header = PARENTS[name] + (LONGER_BY_VERSION * body[9] if name == b"sowt" else 0)
            inside, found = _change(body[header:], kind, new)
            body = body[:header] + inside
        if found:
            return data[:at] + struct.pack(">I4s", len(body) + 8, name) + body + data[at + size :], True
        at += size
    return data, False
