"""The rate of a QuickTime or MP4 file's timecode track, which FFmpeg reads and PyAV doesn't pass on."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

# From the file's top to the sample descriptions of its tracks (QuickTime File Format Specification, "Movie Atoms").
WAY = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
# Version, flags and number of entries, which come before a table's entries.
TABLE_HEAD = 8
# Of a timecode sample description, after its size and name: reserved, data reference, reserved, flags, timescale,
# frame duration.
ENTRY = struct.Struct(">6xH4xIII")


def timecode_track_rate(path: Path) -> Fraction | None:
    """Frames a second of the first timecode track; None where there is none."""
    with path.open("rb") as file:
        if file.read(8)[4:] not in {b"ftyp", b"moov", b"wide", b"mdat", b"free", b"skip"}:
            return None
        return next(_rates(file, 0, file.seek(0, 2), WAY), None)


def _rates(file: BinaryIO, start: int, end: int, way: tuple[bytes, ...]) -> Iterator[Fraction]:
    for kind, inside, after in _atoms(file, start, end):
        if way and kind == way[0]:
            yield from _rates(file, inside + (TABLE_HEAD if kind == b"stsd" else 0), after, way[1:])
        elif not way and kind == b"tmcd" and after - inside >= ENTRY.size:
            file.seek(inside)
            _, _, timescale, duration = ENTRY.unpack(file.read(ENTRY.size))
            if timescale and duration:
                yield Fraction(timescale, duration)


def _atoms(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Each atom's kind, where its content starts and where it ends."""
    while start + 8 <= end:
        file.seek(start)
        size, kind = struct.unpack(">I4s", file.read(8))
        inside = start + 8
        if size == 1:  # the size follows, in eight bytes
            (size,) = struct.unpack(">Q", file.read(8).ljust(8, b"\0"))
            inside += 8
        after = end if size == 0 else start + size
        if after < inside:
            return
        yield kind, inside, min(after, end)
        start = after
