"""The attention's kernels say what a plain softmax says. `test_kernels` runs this in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import accumulate
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.attention.cases import Case, Heads, fill
from engines.qwen2vl.attention import attend, attend_pictures
from engines.qwen2vl.decoder import see
from engines.qwen2vl.kernels import pictures, text, tiles
from engines.qwen2vl.kernels.tiles import Tile
from engines.qwen2vl.layout import BatchLayout, lay_out_batch, lay_out_shot
from engines.qwen2vl.spans import Spans

SHARED = 5
# Stems of one token and none, twigs of three tokens and more.
QUESTIONS: tuple[Sequence[Sequence[Sequence[int]]], ...] = (
    [[(1, 2, 3, 4), (1, 5, 6, 7)]],
    [[(1, 2, 3), (4, 5, 6, 7, 8)], [(1, 2, 3, 4, 5, 6), (1, 2, 3, 7, 8, 9, 9, 9, 9, 9, 9, 9)]],
    [[(1, 2, 3, 4)] * 3],
)
TRUNKS = (37, 3, 70)


def lay_out() -> BatchLayout:
    shots = [
        lay_out_shot(
            range(SHARED + trunk),
            np.broadcast_to(np.arange(SHARED + trunk), (3, SHARED + trunk)),
            (1, 2),
            questions,
            shared=SHARED,
            image_token=7,
        )
        for trunk, questions in zip(TRUNKS, QUESTIONS, strict=True)
    ]
    return lay_out_batch(shots, shared=SHARED, room=4)


def make_case(layout: BatchLayout, heads: Heads) -> Case:
    arrays = {field.name: getattr(layout, field.name) for field in fields(layout)}
    numbers = {name: torch.from_numpy(array) for name, array in arrays.items() if isinstance(array, np.ndarray)}
    return fill(layout, numbers, heads, torch.empty(0))


def softmax_of_each(case: Case, layout: BatchLayout) -> torch.Tensor:
    """Token by token: what it sees, from the layout alone."""
    heads = case.heads
    own = case.questions[:, heads.asking :].unflatten(1, (2, heads.kept))
    seen = [
        case.cache[start : start + SHARED + step + 1]
        for start, filled in zip(layout.places[:-1], layout.filled, strict=True)
        for step in range(filled - SHARED)
    ]
    shot_of = np.searchsorted(layout.asked_starts, np.cumsum(layout.lengths), side="left") - 1
    keys_of = np.split(layout.keys, np.cumsum(layout.key_lengths)[:-1])
    for shot, keys, count in zip(shot_of, keys_of, layout.lengths, strict=True):
        trunk = case.cache[layout.places[shot] :][: layout.seen[shot]]
        seen += [torch.cat([trunk, own[keys[: len(keys) - count + step + 1]]]) for step in range(count)]
    answers = []
    for token, sees in zip(case.qkv, seen, strict=True):
        query = token[: heads.asking].unflatten(0, (heads.kept, -1))
        weights = torch.einsum("kgw,nkw->kgn", query, sees[:, 0]).mul(heads.width**-0.5).softmax(dim=-1)
        answers.append(torch.einsum("kgn,nkw->kgw", weights, sees[:, 1]).flatten(0, 1))
    return torch.stack(answers)


def by_kernels(case: Case, tile: Tile) -> torch.Tensor:
    """As `decoder.see` does it on a GPU."""
    batch, split, heads = case.batch, case.batch.trunk_tokens, case.heads.asking
    query, out = case.qkv[:, :heads], torch.empty(len(case.qkv), heads, case.heads.width)
    text.attend_cached(query[:split], case.cache, batch.trunks, batch.filled, out[:split], tile=tile, causal=True)
    asked, answers = query[split:], out[split:]
    mass = text.attend_cached(asked, case.cache, batch.asked, batch.seen, answers, tile=tile, causal=False)
    text.join_own(answers, mass, case.questions, batch.keys, twigs=batch.twigs, keyed=batch.keyed)
    return out


@pytest.mark.parametrize(
    ("heads", "tile"),
    [(Heads(12, 2, 16), Tile(128, 64, 8, 3)), (Heads(7, 1, 32), Tile(64, 32, 4, 2))],
    ids=["six heads for a key head", "seven"],
)
def test_all_of_it(heads: Heads, tile: Tile) -> None:
    layout = lay_out()
    assert layout.lengths.min() == 1
    case = make_case(layout, heads)
    plain = softmax_of_each(case, layout)
    torch.testing.assert_close(by_kernels(case, tile), plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(see(case.cache, case.qkv, case.batch), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_masses(*, causal: bool) -> None:
    case = make_case(lay_out(), Heads(12, 2, 16))
    asking, cached = (case.batch.trunks, case.batch.filled) if causal else (case.batch.asked, case.batch.seen)
    query = case.qkv[: int(asking.starts[-1]), :12]
    plain = attend(query, case.cache[:, 0], case.cache[:, 1], asking, cached, causal=causal)
    out = torch.empty(query.shape)
    mass = text.attend_cached(query, case.cache, asking, cached, out, tile=Tile(64, 64, 4, 2), causal=causal)
    torch.testing.assert_close((out, mass), plain, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in the interpreter
def test_what_is_not_a_number_is_not_hidden() -> None:
    layout = lay_out()
    case = make_case(layout, Heads(12, 2, 16))
    tokens = [0, 50, len(case.qkv) - 1]
    case.qkv[tokens, 3] = torch.nan
    tile = Tile(128, 32, 8, 2)
    nan = torch.zeros(len(case.qkv), 12, dtype=torch.bool)
    nan[tokens, 3] = True
    assert torch.equal(by_kernels(case, tile).isnan().any(dim=-1), nan)
    key = layout.places[1] + 1  # the second shot's instruction: all of its questions see it
    case.cache[key, 0] = torch.nan
    answer = by_kernels(case, tile)[layout.trunk_tokens :]
    assert answer[layout.asked_starts[1] : layout.asked_starts[2]].isnan().all()


@pytest.mark.parametrize("width", [32, 80])
def test_pictures_see_themselves(width: int) -> None:
    lengths = [1, 100, 64, 33]
    spans = Spans(torch.tensor([0, *accumulate(lengths)], dtype=torch.int32), max(lengths))
    qkv = torch.randn(sum(lengths), 3 * 2, width, generator=torch.Generator().manual_seed(1))
    query, key, value = qkv.split(2, dim=1)
    plain, _ = attend(query, key, value, spans, spans, causal=False)
    torch.testing.assert_close(pictures.attend_pictures(qkv, spans, Tile(64, 32, 4, 2)), plain, rtol=1e-4, atol=1e-5)


def test_a_tile_is_one_that_the_gpu_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    room = SimpleNamespace(shared_memory_per_block_optin=0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: room)
    for room.shared_memory_per_block_optin, tile in ((232_448, text.TILES[0]), (101_376, text.TILES[1])):
        tiles.first_that_fits.cache_clear()
        assert tiles.first_that_fits(text.TILES, torch.device("cuda:0"), 128) == tile  # an H100, an L4
    for tile in (text.TILES[-1], pictures.TILES[-1]):
        assert tile.shared_bytes(80) <= 64 * 1024  # a T4


def test_a_gpu_takes_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = lay_out()
    case = make_case(layout, Heads(12, 2, 16))
    plain = softmax_of_each(case, layout)
    qkv, spans = torch.randn(30, 3 * 2, 32), Spans(torch.tensor([0, 30], dtype=torch.int32), 30)
    pictured = attend_pictures(qkv, spans)
    launched = []

    def first_that_fits(_: tuple[Tile, ...], __: torch.device, width: int) -> Tile:
        launched.append(width)
        return Tile(64, 32, 4, 2)

    monkeypatch.setattr(tiles, "first_that_fits", first_that_fits)
    monkeypatch.setattr("engines.qwen2vl.attention._is_half_on_gpu", lambda _: True)
    monkeypatch.setattr("engines.qwen2vl.fused.has_triton", lambda: True)
    torch.testing.assert_close(see(case.cache, case.qkv, case.batch), plain, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(attend_pictures(qkv, spans), pictured, rtol=1e-4, atol=1e-5)
    assert launched == [16, 16, 32]
