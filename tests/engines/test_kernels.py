"""The GPU's kernels in Triton's interpreter, on a CPU.

What only a GPU shows (that they can be compiled, and are fast) is left to `test_gpu` and to the benchmarks.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from engines.qwen2vl import fused, linear
from tests.helpers import run_interpreted

HERE = Path(__file__).parent


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton, which there is for Linux alone")
def test_kernels_say_what_plain_torch_says() -> None:
    run_interpreted(*sorted(HERE.glob("interpreted_*.py")))


def test_where_none_can_be_built_a_warning_says_what_is_missing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "qwen_server"):
        assert not fused.launches(lambda: fused._kernels().quick_gelu(torch.zeros(1)))  # not on a GPU: Triton fails
    (record,) = caplog.records
    assert "gcc python3-dev" in record.message


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton, which there is for Linux alone")
def test_a_hopper_that_cannot_build_them_multiplies_as_other_gpus_do(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(linear, "is_hopper", lambda _: True)
    with caplog.at_level(logging.WARNING, "qwen_server"):
        assert not linear.has_products.__wrapped__(torch.device("cpu"))
    assert "slower steps of torch take their place" in caplog.text
    monkeypatch.setattr(linear, "has_products", lambda _: False)
    monkeypatch.setattr(fused, "fuses", lambda _: True)
    assert not linear._multiplies(torch.zeros(4096, 64, dtype=torch.bfloat16), torch.zeros(64, 64), 64)
