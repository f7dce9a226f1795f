"""Which token of a batch stands where, and who sees whom.

A shot is read as a tree. Its trunk is the conversation; the instruction at its start is the same for all shots, so its
keys and values are kept and only the rest is read. A question is a twig at the trunk's end, and what all questions of a
picture begin with ("Picture 2, ") is a stem that they share:

    instruction, pictures, marks ──┬── "Caption:"            goes on when the caption is written
                                   ├── "Picture 1, " ──┬── "suspense: 0."
                                   │                   └── "darkness: 0."
                                   └── "Picture 2, " ──┬── "suspense: 0."  ...

In memory the trunks of all shots, each with its caption's cue, stand one behind the other, and behind them all stems
and twigs. Nothing is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile

import numpy as np
from numpy.typing import NDArray

Whole = NDArray[np.int64]

# The last tokens of a twig are read: the one before "0", "0", and the point. A stem never reaches into them.
READ_TAIL = 3


@dataclass(frozen=True, slots=True)
class ShotLayout:
    """One shot's tokens.

    Attributes:
        trunk: ids behind the shared instruction, the caption's cue included.
        trunk_positions: (3, tokens): time, height and width.
        picture_at: places within `trunk` of the pictures' tokens, in order.
        seen: tokens that questions see, the instruction included: all but the cue.
        asked: ids of stems and twigs.
        asked_positions: their positions, the same on all three axes.
        lengths: tokens of each stem or twig, in order.
        key_lengths: of each, with its stem.
        keys: places within `asked`: the stem's and the twig's tokens of each, one after another.
        read: (questions, 2): places within `asked` of the token before "0" and of the point behind it.
        next_position: the position of the first token behind the trunk.
    """

    trunk: Whole
    trunk_positions: Whole
    picture_at: Whole
    seen: int
    asked: Whole
    asked_positions: Whole
    lengths: Whole
    key_lengths: Whole
    keys: Whole
    read: Whole
    next_position: int


def lay_out_shot(
    prefix: Sequence[int],
    positions: Whole,
    cue: Sequence[int],
    questions: Sequence[Sequence[Sequence[int]]],
    *,
    shared: int,
    image_token: int,
) -> ShotLayout:
    """Lay out one shot.

    Args:
        prefix: ids of the whole conversation.
        positions: (3, len(prefix)).
        cue: ids of the caption's cue.
        questions: for each picture, the ids of each question.
        shared: how many ids at the start are the instruction's.
        image_token: the id that stands for a picture's token.
    """
    following = int(positions.max()) + 1
    cue_positions = np.broadcast_to(following + np.arange(len(cue)), (3, len(cue)))
    trunk = np.array([*prefix[shared:], *cue], np.int64)
    asked: list[int] = []
    steps: list[int] = []
    lengths: list[int] = []
    keys: list[list[int]] = []
    read: list[tuple[int, int]] = []
    for branches in questions:
        stem = _common(branches)
        stem_at = list(range(len(asked), len(asked) + stem))
        if stem:
            asked += branches[0][:stem]
            steps += range(stem)
            lengths.append(stem)
            keys.append(stem_at)
        for branch in branches:
            twig_at = list(range(len(asked), len(asked) + len(branch) - stem))
            asked += branch[stem:]
            steps += range(stem, len(branch))
            lengths.append(len(branch) - stem)
            keys.append(stem_at + twig_at)
            read.append((len(asked) - READ_TAIL, len(asked) - 1))
    return ShotLayout(
        trunk=trunk,
        trunk_positions=np.concatenate([positions[:, shared:], cue_positions], axis=1),
        picture_at=np.flatnonzero(trunk == image_token),
        seen=len(prefix),
        asked=np.array(asked, np.int64),
        asked_positions=following + np.array(steps, np.int64),
        lengths=np.array(lengths, np.int64),
        key_lengths=np.array(list(map(len, keys)), np.int64),
        keys=np.concatenate([np.array(each, np.int64) for each in keys]),
        read=np.array(read, np.int64),
        next_position=following + len(cue),
    )


def _common(branches: Sequence[Sequence[int]]) -> int:
    """How many ids all branches begin with, those that are read left out."""
    alike = sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, zip(*branches, strict=False)))
    return min(alike, *(len(branch) - READ_TAIL for branch in branches))


@dataclass(frozen=True, slots=True)
class BatchLayout:
    """A batch's tokens: the trunks of all shots, then their stems and twigs.

    Attributes:
        ids: of all tokens.
        positions: (3, tokens).
        trunk_tokens: how many of them are trunks.
        picture_at: places of the pictures' tokens, shot by shot.
        trunk_starts: where each shot's trunk begins, and behind the last one.
        places: where each shot's tokens lie in the cache, and behind the last one. The instruction comes first there,
            then the trunk, then room for the caption.
        trunk_at: the cache's place of each token of the trunks.
        shared_at: (shots, shared): the cache's places of the instruction.
        filled: tokens of each shot in the cache once the trunks are read.
        seen: of those, what questions see.
        asked_starts: where each shot's stems and twigs begin among all of them.
        lengths: of each stem and twig.
        key_lengths: of each with its stem.
        keys: places among the stems and twigs, as `ShotLayout.keys`.
        read: (questions, 2): places among the stems and twigs.
        ends: places of each trunk's last token.
        next_positions: of each shot's first written token.
        questions: how many each shot has.
    """

    ids: Whole
    positions: Whole
    trunk_tokens: int
    picture_at: Whole
    trunk_starts: Whole
    places: Whole
    trunk_at: Whole
    shared_at: Whole
    filled: Whole
    seen: Whole
    asked_starts: Whole
    lengths: Whole
    key_lengths: Whole
    keys: Whole
    read: Whole
    ends: Whole
    next_positions: Whole
    questions: tuple[int, ...]


def lay_out_batch(shots: Sequence[ShotLayout], *, shared: int, room: int) -> BatchLayout:
    """Lay shots out one behind the other.

    Args:
        shots: what each is made of.
        shared: tokens of the instruction.
        room: tokens of a caption.
    """
    trunk_starts = _starts([len(shot.trunk) for shot in shots])
    asked_starts = _starts([len(shot.asked) for shot in shots])
    places = _starts([shared + len(shot.trunk) + room for shot in shots])
    asked_positions = np.concatenate([shot.asked_positions for shot in shots])
    return BatchLayout(
        ids=np.concatenate([*(shot.trunk for shot in shots), *(shot.asked for shot in shots)]),
        positions=np.concatenate(
            [*(shot.trunk_positions for shot in shots), np.broadcast_to(asked_positions, (3, len(asked_positions)))],
            axis=1,
        ),
        trunk_tokens=int(trunk_starts[-1]),
        picture_at=_shifted([shot.picture_at for shot in shots], trunk_starts),
        trunk_starts=trunk_starts,
        places=places,
        trunk_at=_shifted([np.arange(len(shot.trunk)) for shot in shots], places + shared),
        shared_at=places[:-1, None] + np.arange(shared),
        filled=np.array([shared + len(shot.trunk) for shot in shots]),
        seen=np.array([shot.seen for shot in shots]),
        asked_starts=asked_starts,
        lengths=np.concatenate([shot.lengths for shot in shots]),
        key_lengths=np.concatenate([shot.key_lengths for shot in shots]),
        keys=_shifted([shot.keys for shot in shots], asked_starts),
        read=_shifted([shot.read for shot in shots], asked_starts),
        ends=trunk_starts[1:] - 1,
        next_positions=np.array([shot.next_position for shot in shots]),
        questions=tuple(len(shot.read) for shot in shots),
    )


def _starts(lengths: Sequence[int]) -> Whole:
    return np.array([0, *accumulate(lengths)], np.int64)


def _shifted(parts: Sequence[Whole], by: Whole) -> Whole:
    return np.concatenate([part + start for part, start in zip(parts, by.tolist(), strict=False)])
