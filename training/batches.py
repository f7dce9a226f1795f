"""Rendered shots to what one training step takes: token ids, who sees whom, targets.

All shots of a batch have the same number of pictures of the same size, so they share one layout:

    instruction and pictures | picture 1, suspense: 0. | picture 1, darkness: 0. | ... | Caption: A person ...

It is the packed layout that the engine asks with, the caption as one more branch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engines.packing import Branches, additive, pack_branches, visibility
from engines.questions import Questions
from qwen_shots import prompt
from qwen_shots.fusion import key_frame_indices
from training.film.render import Renderer
from training.film.scenes import PLACES, draw_scenes
from training.film.truth import ATTRIBUTES, tell_truth

TOKEN_SIDE = 28  # pixels
CAPTION_TOKENS = 26  # with the end; a test holds that every caption fits
IGNORED = -100
WORDS = Path(__file__).with_name("words.txt")  # English words of film, for the tokenizer to know whole
MULTIPLE = 16  # tokens of a row and shots of a batch come in multiples of this
PASSES = 2  # over a chunk and its mirror image, for rendering would take a third of the time else

# Horizontal mirror images of what a caption says.
MIRRORED = {"pans left": "pans right", "pans right": "pans left"}


@dataclass(frozen=True, slots=True)
class Bucket:
    """Shots of one shape: token rows and columns of a picture, frames sent, and how often it is drawn."""

    rows: int
    columns: int
    frames: int
    weight: float

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.rows * TOKEN_SIDE, self.columns * TOKEN_SIDE


# What a clip in 16:9, 2.35:1 or 4:3 comes to under the model's cap; and smaller pictures, quicker to learn from.
BUCKETS = (
    Bucket(6, 10, 5, 0.28), Bucket(5, 12, 5, 0.10), Bucket(7, 17, 5, 0.20), Bucket(8, 14, 5, 0.20),
    Bucket(9, 12, 5, 0.08), Bucket(7, 16, 5, 0.03), Bucket(4, 7, 5, 0.05), Bucket(6, 10, 1, 0.03),
    Bucket(6, 10, 2, 0.03),
)  # fmt: skip
FULL_BATCH_TOKENS = 84  # of a picture; shots of larger ones come in smaller batches


@dataclass(frozen=True, slots=True)
class Shots:
    """Rendered shots with their truth, on the device.

    Attributes:
        film: key frames, uint8 of shape (B, K, 3, height, width).
        scores: float32 of shape (B, K, attributes).
        captions: token ids behind the cue, the end included, int64 of shape (B, CAPTION_TOKENS); IGNORED where there
            is none.
    """

    film: Tensor
    scores: Tensor
    captions: Tensor

    def rows(self, rows: Tensor) -> Shots:
        """Some of the shots."""
        return Shots(self.film[rows], self.scores[rows], self.captions[rows])


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything stands in the rows of a batch; one row for all.

    Attributes:
        ids: int64 (length,), 0 where the caption comes.
        positions: int64 (3, 1, length).
        mask: additive, (1, 1, length, length).
        pictures: columns of the picture tokens, int64.
        wholes: columns that are read for "0" or "1", in the order picture, attribute.
        digits: columns that are read for the first decimal.
        caption: columns that are read for the caption's tokens.
        grid: token rows and columns of a picture.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    pictures: Tensor
    wholes: Tensor
    digits: Tensor
    caption: Tensor
    grid: tuple[int, int]


def build_layout(model: Any, questions: Questions, bucket: Bucket, device: torch.device | str) -> Layout:
    """Lay out a row for shots of one shape."""
    pictures = len(key_frame_indices(bucket.frames))
    prefix = torch.tensor([questions.prefix([bucket.rows * bucket.columns] * pictures)])
    caption = (*questions.caption_cue, *[0] * (CAPTION_TOKENS - 1))
    asked = [*questions.branches(pictures), caption]
    # Padding behind the caption, which nothing sees: attention kernels like whole multiples.
    padding = -(prefix.shape[1] + sum(map(len, asked))) % MULTIPLE
    branches = pack_branches([[*asked[:-1], (*caption, *[0] * padding)]])
    is_picture = prefix == questions.image_token
    positions, _ = model.model.get_rope_index(
        input_ids=prefix,
        mm_token_type_ids=is_picture.int(),
        image_grid_thw=torch.tensor([[1, 2 * bucket.rows, 2 * bucket.columns]] * pictures),
        attention_mask=torch.ones_like(prefix),
    )
    behind = positions.amax() + 1 + branches.step
    mask = additive(visibility(torch.ones_like(prefix, dtype=torch.bool), branches), torch.float32)
    ends = torch.tensor(branches.ends[0]) + prefix.shape[1]
    return Layout(
        ids=torch.cat([prefix, branches.ids], dim=1)[0].to(device),
        positions=torch.cat([positions, behind.expand(3, 1, -1)], dim=2).to(device),
        mask=mask.to(device),
        pictures=is_picture[0].nonzero().flatten().to(device),
        wholes=(ends[:-1] - 3).to(device),
        digits=(ends[:-1] - 1).to(device),
        caption=_caption_columns(branches, questions, prefix.shape[1]).to(device),
        grid=(bucket.rows, bucket.columns),
    )


def _caption_columns(branches: Branches, questions: Questions, prefix: int) -> Tensor:
    start = branches.ends[0][-2] + prefix + len(questions.caption_cue) - 1
    return torch.arange(start, start + CAPTION_TOKENS)


def score_targets(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Distributions whose expected value is the score.

    A score between two tenths is split between them.

    Args:
        scores: 0..1, of any shape.

    Returns:
        Probability of "1" before the point, and of the ten digits behind "0.", of shapes (...) and (..., 10).
    """
    tenths = scores.clamp(0, 1) * 10
    low = tenths.floor().clamp(max=9)
    share = tenths - low
    chances = torch.zeros(*scores.shape, 11, device=scores.device)
    chances.scatter_(-1, low.long()[..., None], (1 - share)[..., None])
    chances.scatter_add_(-1, low.long()[..., None] + 1, share[..., None])
    one = chances[..., 10]
    digits = chances[..., :10] / (1 - one).clamp(min=1e-6)[..., None]
    return one, torch.where((one > 1 - 1e-6)[..., None], torch.full_like(digits, 0.1), digits)


class ShotSource:
    """Renders shots and tokenizes their captions.

    Args:
        tokenizer: of the model.
        device: where to render.
    """

    def __init__(self, tokenizer: Any, device: torch.device | str) -> None:
        self._tokenizer = tokenizer
        self._device = device
        self._renderer = Renderer(device)

    def render(self, seed: int, shots: int, bucket: Bucket, places: Sequence[str] = PLACES) -> tuple[Shots, list[str]]:
        """Render shots of one shape; the same seed gives the same shots. Also returns their captions as text."""
        height, width = bucket.size
        scenes = draw_scenes(seed, shots, frames=bucket.frames, aspect=width / height, places=places)
        film = self._renderer.frames(scenes.at_frames(list(key_frame_indices(bucket.frames))), height, width)
        truth = tell_truth(scenes, film)
        scores = torch.as_tensor(truth.scores, device=self._device)
        return Shots(film, scores, self._encode(truth.captions)), truth.captions

    def _encode(self, captions: Sequence[str]) -> Tensor:
        rows = np.full((len(captions), CAPTION_TOKENS), IGNORED, dtype=np.int64)
        encoded = self._tokenizer([f" {caption}" for caption in captions])["input_ids"]
        for row, caption, ids in zip(rows, captions, encoded, strict=True):
            if caption:
                row[: len(ids) + 1] = [*ids, self._tokenizer.eos_token_id]
        return torch.as_tensor(rows, device=self._device)

    def mirrored(self, shots: Shots, captions: Sequence[str]) -> Shots:
        """The same shots as a mirror shows them."""
        swapped = [_mirror(caption) for caption in captions]
        return Shots(shots.film.flip(-1), shots.scores, self._encode(swapped))


def _mirror(caption: str) -> str:
    for word, other in MIRRORED.items():
        if word in caption:
            return caption.replace(word, other)
    return caption


def draw_bucket(seed: int) -> Bucket:
    """The shape of a chunk of shots."""
    weights = np.array([bucket.weight for bucket in BUCKETS])
    chosen: Bucket = BUCKETS[np.random.default_rng(seed).choice(len(BUCKETS), p=weights / weights.sum())]
    return chosen


def stream(
    source: ShotSource, first: int, *, chunk: int, batch: int, at_once: int = 4
) -> Iterator[tuple[Bucket, Shots]]:
    """Batches without end, from several chunks in turn; each chunk is used as it is and mirrored.

    Args:
        source: renders.
        first: seed of the first chunk; each further one has the next number.
        chunk: shots rendered together.
        batch: shots of a step; a chunk of larger pictures gives smaller batches, of about equally many tokens.
        at_once: chunks that are open at the same time, so that neighbouring steps differ in shape.
    """
    number = first
    open_chunks: list[Iterator[tuple[Bucket, Shots]]] = []
    while True:
        while len(open_chunks) < at_once:
            open_chunks.append(_chunk(source, number, chunk, batch))
            number += 1
        turn = open_chunks.pop(0)
        if (step := next(turn, None)) is not None:
            open_chunks.append(turn)
            yield step


def _chunk(source: ShotSource, seed: int, chunk: int, batch: int) -> Iterator[tuple[Bucket, Shots]]:
    bucket = draw_bucket(seed)
    share = min(1.0, FULL_BATCH_TOKENS / (bucket.rows * bucket.columns))
    size = max(MULTIPLE, int(batch * share) // MULTIPLE * MULTIPLE)
    count = max(size, int(chunk * share))
    shots, captions = source.render(seed, count, bucket)
    random = np.random.default_rng(seed)
    mirrored = source.mirrored(shots, captions)
    for pool in (shots, mirrored) * PASSES:
        order = torch.from_numpy(random.permutation(count)).to(shots.film.device)
        for rows in torch.split(order[: count // size * size], size):
            yield bucket, pool.rows(rows)


def questions_of(tokenizer: Any, attributes: Mapping[str, str], image_token: int) -> Questions:
    """The engine's own questions, in the order of the truth's attributes."""
    return Questions(tokenizer, image_token, {name: attributes[name] for name in ATTRIBUTES})


def corpus(attributes: Mapping[str, str]) -> Iterator[str]:
    """What the tokenizer learns from: the instruction, the questions, captions and words of film."""
    from training.film.truth import all_words

    # What every prompt holds counts most: it should cost few tokens.
    yield from [prompt.instruction(attributes)] * 50
    for picture in range(1, 4):
        for name in attributes:
            yield from [prompt.score_branch(picture, name)] * 50
    for phrase in all_words():
        yield f"{prompt.CAPTION_CUE} {phrase}, {phrase}." * 20
    for word in WORDS.read_text().split():
        yield f"{word} {word}" * 2
