"""How the work of an attention kernel is cut."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

LOG2_E = 1.4426950408889634


@dataclass(frozen=True, slots=True)
class Tile:
    """How a kernel's work is cut.

    Attributes:
        rows: queries times heads that a program takes at once.
        keys: that it takes at once.
        warps: of 32 threads each.
        stages: blocks of keys on their way at once.
    """

    rows: int
    keys: int
    warps: int
    stages: int

    def __str__(self) -> str:
        return f"{self.rows} x {self.keys}, {self.warps} warps, {self.stages} stages"

    def shared_bytes(self, width: int) -> int:
        """Memory on the chip that heads of so many numbers need, in half precision."""
        return 2 * width * (self.rows + 2 * self.keys * self.stages)


@lru_cache
def first_that_fits(tiles: tuple[Tile, ...], device: torch.device, width: int) -> Tile:
    """The first tile that the GPU has room for, else the last one.

    Args:
        tiles: the fastest first; the last fits on all that Triton builds for.
        device: the GPU.
        width: of a head.
    """
    room = torch.cuda.get_device_properties(device).shared_memory_per_block_optin  # type: ignore[attr-defined]
    return next((tile for tile in tiles if tile.shared_bytes(width) <= room), tiles[-1])
