"""The GPU's kernels in Triton's interpreter, on a CPU.

What only a GPU shows (that they can be compiled, and are fast) is left to `test_gpu` and to the benchmarks.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.helpers import run_interpreted

TESTS = Path(__file__).with_name("interpreted_kernels.py")


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton, which there is for Linux alone")
def test_kernels_say_what_plain_torch_says() -> None:
    run_interpreted(TESTS)
