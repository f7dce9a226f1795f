"""The GPU's kernels in Triton's interpreter, on a CPU.

What only a GPU shows (that they can be compiled, and are fast) is left to `test_gpu` and to the benchmarks.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

TESTS = Path(__file__).with_name("interpreted_kernels.py")


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton, which there is for Linux alone")
def test_kernels_say_what_plain_torch_says() -> None:
    """In a process of its own: Triton decides when it is imported whether it interprets."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS)]
    ran = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout
    assert " passed" in ran.stdout
