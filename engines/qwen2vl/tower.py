"""Pictures to tokens: Qwen2-VL's vision tower over pictures of any sizes at once.

Pictures travel to the GPU as bytes and are cut into patches there. Those of all shots go through the tower together, in
chunks that keep its inner tensors small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from engines.base import Picture
from engines.qwen2vl import fused, linear
from engines.qwen2vl.attention import attend_pictures
from engines.qwen2vl.embedding import PatchEmbedding
from engines.qwen2vl.spans import Spans

if TYPE_CHECKING:
    from torch import Tensor

    from engines.qwen2vl.fused import Angles
    from model_loader import PictureSpec

CHUNK_PATCHES = 65_536

# The base of the tower's rotary angles, which no configuration changes.
THETA = 10_000.0


@dataclass(frozen=True, slots=True)
class Group:
    """Pictures of one size.

    Attributes:
        rows: patches from top to bottom.
        columns: patches from left to right.
        count: pictures.
    """

    rows: int
    columns: int
    count: int

    @property
    def patches(self) -> int:
        """Of one picture."""
        return self.rows * self.columns


@dataclass(frozen=True, slots=True)
class Pixels:
    """Pictures on their way to the device, sorted by size.

    Attributes:
        bytes: uint8, all pictures one behind the other.
        groups: how many there are of each size, in that order.
        token_order: which token, counted in the pictures' first order, each token in the sorted order is.
        starts: int32 (pictures + 1,): where each picture's patches begin, and the end of the last one's.
        grid: int32 (patches, 2): row and column of each patch in its picture.
    """

    bytes: Tensor
    groups: tuple[Group, ...]
    token_order: Tensor
    starts: Tensor
    grid: Tensor


def gather_pixels(pictures: Sequence[Picture], spec: PictureSpec, *, pinned: bool) -> Pixels:
    """Sort pictures by size and join their bytes.

    Args:
        pictures: uint8 RGB, sides multiples of `spec.factor`.
        spec: the family's patches.
        pinned: whether a GPU will fetch them.
    """
    sizes = [(picture.shape[0] // spec.patch, picture.shape[1] // spec.patch) for picture in pictures]
    first_token = [0, *accumulate(rows * columns // spec.merge**2 for rows, columns in sizes)]
    order = sorted(range(len(pictures)), key=lambda place: sizes[place])
    tokens = [np.arange(first_token[place], first_token[place + 1]) for place in order]
    joined = torch.empty(sum(picture.size for picture in pictures), dtype=torch.uint8, pin_memory=pinned)
    # By torch, which lets go of the interpreter's lock for all of them at once.
    torch.cat([_flat(pictures[place]) for place in order], out=joined)
    counted = {size: sizes.count(size) for size in sorted(set(sizes))}
    groups = tuple(Group(*size, count) for size, count in counted.items())
    grids = [np.tile(_grid(group.rows, group.columns, spec.merge), (group.count, 1)) for group in groups]
    return Pixels(
        bytes=joined,
        groups=groups,
        token_order=torch.from_numpy(np.concatenate(tokens)),
        starts=_cumulated([group.patches for group in groups for _ in range(group.count)]),
        grid=torch.from_numpy(np.concatenate(grids)),
    )


def _cumulated(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)


# A film has one size of picture.
@lru_cache(maxsize=64)
def _grid(rows: int, columns: int, merge: int) -> NDArray[np.int32]:
    """Row and column of a picture's patches, (patches, 2), in the order of `VisionTower`'s patches."""
    tiles = np.indices((rows, columns), np.int32).reshape(2, rows // merge, merge, columns // merge, merge)
    return np.ascontiguousarray(tiles.transpose(1, 3, 2, 4, 0).reshape(-1, 2))


def _flat(picture: Picture) -> Tensor:
    return torch.from_numpy(picture if picture.flags.writeable else picture.copy()).reshape(-1)


def _fitting(groups: Sequence[Group]) -> Iterator[Group]:
    """The groups, those that are too large for a chunk in several."""
    for group in groups:
        most = max(1, CHUNK_PATCHES // group.patches)
        for first in range(0, group.count, most):
            yield Group(group.rows, group.columns, min(most, group.count - first))


def _chunked(pieces: Iterable[Group]) -> Iterator[list[Group]]:
    """The pieces in chunks of at most `CHUNK_PATCHES` patches."""
    chunk: list[Group] = []
    room = CHUNK_PATCHES
    for piece in pieces:
        if chunk and room < piece.count * piece.patches:
            yield chunk
            chunk, room = [], CHUNK_PATCHES
        chunk.append(piece)
        room -= piece.count * piece.patches
    yield chunk


def _sums_of_biases(blocks: Any) -> Tensor:
    """The biases that each norm finds in the residual stream, float32 (norms, width): they are added there at once."""
    biases = [layer.bias.detach().float() for block in blocks for layer in (block.attn.proj, block.mlp.fc2)]
    return torch.stack([torch.zeros_like(biases[0]), *biases]).cumsum(dim=0)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Pictures that go through the tower together; attributes as of `Pixels`, but `parts`: the pixels, by group."""

    parts: list[Tensor]
    groups: list[Group]
    starts: Tensor
    grid: Tensor


class VisionTower:
    """The tower of a transformers Qwen2-VL.

    Args:
        visual: the transformers module; its weights are used as they are.
        spec: the family's patches and colours.
    """

    def __init__(self, visual: Any, spec: PictureSpec) -> None:
        self._visual = visual
        self._spec = spec
        kernel = visual.patch_embed.proj.weight
        self._device, self._dtype = kernel.device, visual.blocks[0].norm1.weight.dtype
        # A still picture is a film of equal frames, so their kernels add up.
        self._embedding = PatchEmbedding(kernel.detach().sum(dim=2, dtype=torch.float32), spec, self._dtype)
        self._heads = visual.blocks[0].attn.num_heads
        self._shifts = _sums_of_biases(visual.blocks)
        width = len(visual.blocks[0].norm1.weight) // self._heads // 2
        speed = THETA ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)
        self._speed = speed.to(self._device)

    def look(self, content: Tensor, groups: Sequence[Group], starts: Tensor, grid: Tensor) -> Tensor:
        """Look at pictures. Reads its arguments and the weights alone, so a CUDA graph of it needs no other tensor.

        Args:
            content: `Pixels.bytes`.
            groups: `Pixels.groups`.
            starts: `Pixels.starts`, on the device.
            grid: `Pixels.grid`, on the device.

        Returns:
            Tokens of all pictures, in their sorted order, of shape (tokens, width of the text side).
        """
        content = content.to(self._device, non_blocking=True)
        return torch.cat([self._look(chunk) for chunk in self._chunks(content, groups, starts, grid)])

    def _chunks(self, content: Tensor, groups: Sequence[Group], starts: Tensor, grid: Tensor) -> Iterator[Chunk]:
        """Some pictures at a time."""
        first, last = 0, 0
        for pieces in _chunked(_fitting(groups)):
            sizes = [piece.count * piece.patches for piece in pieces]
            count, patches = sum(piece.count for piece in pieces), sum(sizes)
            values = 3 * self._spec.patch**2
            yield Chunk(
                parts=list(content[values * first : values * (first + patches)].split([values * n for n in sizes])),
                groups=pieces,
                starts=starts[last : last + count + 1] - first,
                grid=grid[first : first + patches],
            )
            first, last = first + patches, last + count

    def _look(self, chunk: Chunk) -> Tensor:
        """Tokens of one chunk."""
        patches = torch.cat([self._cut(part, group) for part, group in zip(chunk.parts, chunk.groups, strict=True)])
        longest = max(group.patches for group in chunk.groups)
        return self._encode(patches, self._angles(chunk.grid), Spans(chunk.starts, longest))

    def _cut(self, content: Tensor, size: Group) -> Tensor:
        """Pixels of pictures of one size to patches, uint8 of shape (patches, 3, patch, patch).

        Neighbouring patches of one token stand next to each other: (token row, token column, row in it, column in it).
        """
        patch, merge = self._spec.patch, self._spec.merge
        tiles = content.view(
            size.count, size.rows // merge, merge, patch, size.columns // merge, merge, patch, 3
        ).permute(0, 1, 4, 2, 5, 7, 3, 6)
        return tiles.reshape(-1, 3, patch, patch)

    def _encode(self, patches: Tensor, angles: Angles, spans: Spans) -> Tensor:
        merger, shifts = self._visual.merger, iter(self._shifts)
        x = self._embedding.embed(patches)
        for block in self._visual.blocks:
            normed = fused.layer_norm(x, next(shifts), block.norm1.weight, block.norm1.bias)
            qkv = block.attn.qkv(normed).view(len(x), 3 * self._heads, -1)
            fused.turn(qkv, angles, 2 * self._heads)
            linear.add_linear(x, attend_pictures(qkv, spans).flatten(1), block.attn.proj.weight)
            normed = fused.layer_norm(x, next(shifts), block.norm2.weight, block.norm2.bias)
            inner = linear.linear_quick_gelu(normed, block.mlp.fc1.weight, block.mlp.fc1.bias)
            linear.add_linear(x, inner, block.mlp.fc2.weight)
        normed = fused.layer_norm(x, next(shifts), merger.ln_q.weight, merger.ln_q.bias)
        tokens: Tensor = merger.mlp(normed.view(-1, merger.hidden_size))
        return tokens

    def _angles(self, grid: Tensor) -> Angles:
        """Cosines and sines of patches, float32 of shape (patches, head width / 2).

        A quarter of a head's width turns with the row and another with the column, as in Qwen2-VL (Wang et al. 2024,
        arXiv 2409.12191).
        """
        angles = (grid[:, :, None] * self._speed).flatten(1)
        return angles.cos(), angles.sin()
