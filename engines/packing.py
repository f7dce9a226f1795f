"""How shots and questions lie in one batch, and who may see whom.

Each row of the batch is one shot: padding, then the shot's prefix (instruction and key frames), then its branches.

    row 0   . . P P P P P P | a a a  b b b  c c c       a, b, c: branches, one question each
    row 1   P P P P P P P P | a a a  b b b  . . .       .: padding

All prefixes end in the same column, so that the cache can be cut there and captions go on from it. A branch sees its
row's prefix and itself, no other branch, and its positions restart behind the prefix: it can't know that it was packed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

PADDING = -1


@dataclass(frozen=True, slots=True)
class Branches:
    """The questions of each row, laid out one after another.

    Attributes:
        ids: token ids, int64 of shape (rows, columns), 0 where there is padding.
        owner: number of the branch that a token belongs to, PADDING where there is none; same shape.
        step: place of a token within its branch, from 0; same shape.
        ends: for each row, the column behind each branch.
    """

    ids: Tensor
    owner: Tensor
    step: Tensor
    ends: list[list[int]]


def pad_left(rows: Sequence[Sequence[int]], fill: int) -> tuple[Tensor, Tensor]:
    """Stack rows of unequal length against the right edge.

    Returns:
        ids, int64 of shape (rows, longest), and a bool mask of the same shape that is True on real tokens.
    """
    longest = max(len(row) for row in rows)
    ids = torch.tensor([[fill] * (longest - len(row)) + list(row) for row in rows])
    real = torch.tensor([[False] * (longest - len(row)) + [True] * len(row) for row in rows])
    return ids, real


def pack_branches(rows: Sequence[Sequence[Sequence[int]]]) -> Branches:
    """Lay each row's branches one after another, padded on the right to the longest row."""
    columns = max(sum(map(len, row)) for row in rows)
    ids = torch.zeros(len(rows), columns, dtype=torch.long)
    owner = torch.full((len(rows), columns), PADDING)
    step = torch.zeros(len(rows), columns, dtype=torch.long)
    ends: list[list[int]] = []
    for r, row in enumerate(rows):
        column, row_ends = 0, []
        for number, branch in enumerate(row):
            here = slice(column, column + len(branch))
            ids[r, here] = torch.tensor(list(branch))
            owner[r, here] = number
            step[r, here] = torch.arange(len(branch))
            column += len(branch)
            row_ends.append(column)
        ends.append(row_ends)
    return Branches(ids, owner, step, ends)


def visibility(prefix_real: Tensor, branches: Branches) -> Tensor:
    """Who may see whom: bool of shape (rows, 1, length, length), True at [r, 0, q, k] when q sees k.

    Padding sees itself alone: a softmax over nothing would be NaN.
    """
    rows, prefix = prefix_real.shape
    columns = branches.ids.shape[1]
    real = torch.cat([prefix_real, branches.owner != PADDING], dim=1)
    # The prefix is a branch of its own that everybody sees.
    owner = torch.cat([torch.full((rows, prefix), PADDING - 1), branches.owner], dim=1)
    same = (owner[:, :, None] == owner[:, None, :]) | (owner[:, None, :] == PADDING - 1)
    causal = torch.ones(prefix + columns, prefix + columns, dtype=torch.bool).tril()
    seen = same & causal & real[:, None, :] & real[:, :, None]
    seen |= torch.eye(prefix + columns, dtype=torch.bool)
    return seen[:, None]


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask as attention adds it to its scores: 0 where seen, the smallest finite number where not."""
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)
