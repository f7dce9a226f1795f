"""The parts of Qwen2-VL's own forward pass, each against a plainer way; that its answers are right is test_runner's."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engines.qwen2vl import fused
from engines.qwen2vl.attention import attend
from engines.qwen2vl.layout import ShotLayout, lay_out_batch, lay_out_shot
from engines.qwen2vl.spans import Spans
from engines.qwen2vl.tower import CHUNK_PATCHES, Group, _chunked, _fitting

IMAGE = 9
CUE = [50, 51]
# Two pictures: "<1, ...>" and "<2, ...>" begin all questions of a picture, and end in three tokens that are read.
QUESTIONS = [[[1, 7, 20, 3, 0, 5], [1, 7, 21, 22, 3, 0, 5]], [[2, 7, 20, 3, 0, 5], [2, 7, 21, 22, 3, 0, 5]]]


def lay_out(prefix: list[int]) -> ShotLayout:
    positions = np.broadcast_to(np.arange(len(prefix)), (3, len(prefix)))
    return lay_out_shot(prefix, positions, CUE, QUESTIONS, shared=2, image_token=IMAGE)


def test_what_questions_begin_with_is_read_once() -> None:
    shot = lay_out([100, 101, IMAGE, IMAGE, 102])
    assert shot.trunk.tolist() == [IMAGE, IMAGE, 102, *CUE]
    assert shot.picture_at.tolist() == [0, 1]
    assert shot.seen == 5
    assert shot.asked.tolist() == [1, 7, 20, 3, 0, 5, 21, 22, 3, 0, 5, 2, 7, 20, 3, 0, 5, 21, 22, 3, 0, 5]
    assert shot.lengths.tolist() == [2, 4, 5, 2, 4, 5]
    assert shot.key_lengths.tolist() == [2, 6, 7, 2, 6, 7]
    keys = np.split(shot.keys, np.cumsum(shot.key_lengths)[:-1])
    for (picture, question), at in zip(((0, 0), (0, 1), (1, 0), (1, 1)), (1, 2, 4, 5), strict=True):
        branch = QUESTIONS[picture][question]
        assert shot.asked[keys[at]].tolist() == branch
        assert (shot.asked_positions[keys[at]] - 5).tolist() == list(range(len(branch)))
    assert shot.asked[shot.read].tolist() == [[3, 5]] * 4
    assert shot.next_position == 5 + len(CUE)


def test_shots_lie_one_behind_the_other() -> None:
    shots = [lay_out([100, 101, IMAGE, 102]), lay_out([100, 101, IMAGE, IMAGE, IMAGE, 102])]
    batch = lay_out_batch(shots, shared=2, room=3)
    assert batch.ids.tolist() == [*shots[0].trunk, *shots[1].trunk, *shots[0].asked, *shots[1].asked]
    assert batch.ids[batch.picture_at].tolist() == [IMAGE] * 4
    assert batch.ids[batch.ends].tolist() == [CUE[-1]] * 2
    questions = batch.ids[batch.trunk_tokens :]
    assert questions[batch.read].tolist() == [[3, 5]] * 8
    held = [*batch.shared_at.flatten(), *batch.trunk_at]
    assert sorted(held) == sorted(set(held)), "no place is used twice"
    for number in range(2):
        first, room = batch.places[number], batch.places[number + 1] - batch.filled[number] - batch.places[number]
        assert batch.shared_at[number].tolist() == [first, first + 1]
        assert room == 3


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 5)), min_size=1, max_size=5), st.booleans())
def test_ragged_attention_is_attention_of_each_sequence(sizes: list[tuple[int, int]], causal: bool) -> None:
    torch.manual_seed(0)
    asking, seen = [a for a, _ in sizes], [a + more for a, more in sizes]
    query, key, value = (
        torch.randn(sum(asking), 4, 8),
        torch.randn(sum(seen) + 3, 2, 8),
        torch.randn(sum(seen) + 3, 2, 8),
    )
    answer, mass = attend(query, key, value, spans(asking), spans(seen), causal=causal)
    ends = list(zip(accumulate(asking), asking, accumulate(seen), seen, strict=True))
    for last, count, key_last, keys in ends:
        q, k, v = query[last - count : last], key[key_last - keys : key_last], value[key_last - keys : key_last]
        scores = torch.einsum("qhd,khd->hqk", q, k.repeat_interleave(2, 1)) * 8**-0.5
        if causal:
            scores = scores.masked_fill(torch.ones(count, keys).triu(keys - count + 1).bool(), -torch.inf)
        plain = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v.repeat_interleave(2, 1))
        torch.testing.assert_close(answer[last - count : last], plain, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mass[:, last - count : last], scores.logsumexp(-1), rtol=1e-4, atol=1e-5)


def spans(lengths: list[int]) -> Spans:
    return Spans(torch.tensor([0, *accumulate(lengths)], dtype=torch.int32), max(lengths))


def test_attention_over_two_sets_of_keys_is_joined() -> None:
    torch.manual_seed(1)
    query, key, value = torch.randn(3, 4, 8), torch.randn(9, 2, 8), torch.randn(9, 2, 8)
    whole, _ = attend(query, key, value, spans([3]), spans([9]), causal=False)
    first, second = (
        attend(query, key[part], value[part], spans([3]), spans([count]), causal=False)
        for part, count in ((slice(0, 4), 4), (slice(4, 9), 5))
    )
    torch.testing.assert_close(fused.join(*first, *second), whole)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=3))
def test_no_group_is_too_large_for_a_chunk(counts: list[int]) -> None:
    groups = [Group(20 * n, 300, count) for n, count in enumerate(counts, start=1)]
    parts = list(_fitting(groups))
    for group in groups:
        assert sum(part.count for part in parts if part.rows == group.rows) == group.count
    chunks = list(_chunked(parts))
    assert [part for chunk in chunks for part in chunk] == parts
    assert all(sum(part.patches * part.count for part in chunk) <= CHUNK_PATCHES for chunk in chunks)


@pytest.mark.parametrize("rows", [1, 5])
def test_the_mass_is_the_softmaxs_denominator(rows: int) -> None:
    torch.manual_seed(2)
    logits = torch.randn(rows, 77, dtype=torch.bfloat16) * 6
    torch.testing.assert_close(fused.log_mass(logits).exp(), logits.float().exp().sum(-1))
