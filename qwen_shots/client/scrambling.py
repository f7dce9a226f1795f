"""How much of a transport stream's track is scrambled, by samples of the file.

FFmpeg skips scrambled packets without a word, so that nothing else says that they are missing.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SYNC = 0x47
PACKET_BYTES = 188
# As broadcast, with the time of arrival before each packet (M2TS), and with error correction behind it.
SPACINGS = (188, 192, 204)

# A picture takes 20 to 250 kB in a broadcast, so that even of long films at least 30 are looked at.
SAMPLES = 64
SAMPLE_BYTES = 1 << 17


def scrambled_share(path: Path, track: int) -> float:
    """Estimate which share (0..1) of a track's units, pictures or blocks of sound, can't be read without a key.

    Some receivers leave packets marked as scrambled that they have descrambled; those begin with a start code, and
    count as readable.

    Args:
        path: a transport stream.
        track: the track's packet identifier (PID).
    """
    units = scrambled = 0
    for sample in _samples(path):
        packets = _packets(sample)
        is_start = ((packets[:, 1] & 0x40) > 0) & ((packets[:, 3] & 0x10) > 0)
        packets = packets[is_start & (((packets[:, 1] & 0x1F) * np.uint16(256) + packets[:, 2]) == track)]
        units += len(packets)
        scrambled += int(np.count_nonzero(((packets[:, 3] & 0xC0) > 0) & ~_begins_a_unit(packets)))
    return scrambled / units if units else 0.0


def _samples(path: Path) -> list[NDArray[np.uint8]]:
    """Pieces of the file at even distances; a small file as a whole."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size <= SAMPLES * SAMPLE_BYTES:
            file.seek(0)
            return [np.frombuffer(file.read(), np.uint8)]
        pieces = []
        for number in range(SAMPLES):
            file.seek(number * (size - SAMPLE_BYTES) // (SAMPLES - 1))
            pieces.append(np.frombuffer(file.read(SAMPLE_BYTES), np.uint8))
        return pieces


def _packets(sample: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The packets of a piece, (packets, PACKET_BYTES); the spacing is the one at which most sync bytes lie."""
    best, found = 0.0, np.zeros((0, PACKET_BYTES), np.uint8)
    for spacing in SPACINGS:
        in_sync = (sample[: len(sample) // spacing * spacing].reshape(-1, spacing) == SYNC).mean(axis=0)
        at = int(in_sync.argmax())
        if len(sample) > at + spacing and in_sync[at] > best:
            count = (len(sample) - at) // spacing
            rows = sample[at : at + count * spacing].reshape(count, spacing)[:, :PACKET_BYTES]
            best, found = in_sync[at], rows[rows[:, 0] == SYNC]
    return found


def _begins_a_unit(packets: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each packet's payload begins with the start code of a packetized elementary stream, 00 00 01."""
    has_adaptation = (packets[:, 3] & 0x20) > 0
    payload = 4 + np.where(has_adaptation, packets[:, 4].astype(int) + 1, 0)
    places = np.minimum(payload[:, None] + np.arange(3), PACKET_BYTES - 1)
    begins: NDArray[np.bool_] = (np.take_along_axis(packets, places, axis=1) == (0, 0, 1)).all(axis=1)
    return begins
