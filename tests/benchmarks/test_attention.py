"""The benchmark of attention, as far as it needs no GPU: its batches, and its ways in Triton's interpreter."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import model_loader
from benchmarks.attention.cases import Heads, make_case
from engines.qwen2vl.decoder import see
from engines.runner import ModelRunner
from settings import Settings
from tests.helpers import run_interpreted

TESTS = Path(__file__).with_name("interpreted_attention.py")


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton, which there is for Linux alone")
def test_ways_and_tables() -> None:
    run_interpreted(TESTS)


def test_a_batch_is_laid_out_as_the_server_does(settings: Settings) -> None:
    folder = model_loader.find_files(settings.model.name)
    loaded = model_loader.load(settings.model, folder, model_loader.make_plan(settings.model, folder))
    case = make_case(ModelRunner(loaded, settings.attributes, 2), 1000, (2, 3), Heads(4, 2, 8), torch.empty(0))
    starts, lengths = case.batch.seen.starts, case.batch.seen.lengths
    assert case.shots > 1
    assert lengths is not None
    assert case.shared > 100
    first, second = (case.cache[start : start + case.shared] for start in starts[:2].tolist())
    assert torch.equal(first, second)
    assert see(case.cache, case.qkv, case.batch).shape == (len(case.qkv), 4, 8)
