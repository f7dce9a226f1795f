"""A whole model asked by the GPU's kernels answers as it does in plain torch. `test_kernels` runs this, interpreted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch

from benchmarks import shapes
from engines.base import ShotPictures
from engines.qwen2vl import fused, linear
from engines.qwen2vl.backbone import Qwen2VL
from engines.qwen2vl.kernels import alone, captions, pictures, products, steps, text, tiles
from engines.qwen2vl.kernels.products import Cut
from engines.qwen2vl.kernels.tiles import Tile
from engines.runner import ModelRunner

ATTRIBUTES = {"fear": "from none to very much"}
TOKENS = 3
LAUNCHED = {
    alone: ["norm_query", "norm_silu_times", "add_linear"],
    captions: ["attend_one"],
    pictures: ["attend_pictures"],
    products: ["linear_quick_gelu", "linear_silu_times"],
    steps: ["norm", "turn", "log_mass"],
    text: ["attend_cached", "join_own"],
}


def shot(seed: int, count: int) -> ShotPictures:
    noise = np.random.default_rng(seed).integers(0, 255, (count, 28, 28, 3), dtype=np.uint8)
    return ShotPictures(tuple(noise))


@pytest.fixture(scope="module")
def runner() -> ModelRunner:
    torch.manual_seed(0)
    return ModelRunner(shapes.random_model("tiny", "cpu", torch.float32), ATTRIBUTES, TOKENS)


def ask(runner: ModelRunner, shots: Sequence[ShotPictures]) -> tuple[list[list[int]], list[torch.Tensor]]:
    """The captions' tokens; the labels' chances, and all that the cache holds in the end."""
    assert isinstance(runner.backbone, Qwen2VL)
    cache = runner.backbone._decoder.cache
    with torch.inference_mode():
        cache.zero_()
    ran = runner.run(runner.prepare(shots))
    return ran.tokens.tolist(), [ran.wholes, ran.digits, cache.clone()]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in the interpreter
def test_shots_alone_and_together(runner: ModelRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [[shot(1, 1)], [shot(1, 1), shot(2, 2)]]
    runner.run(runner.prepare(asked[-1]))  # so that the cache has room for all of them
    plain = [ask(runner, shots) for shots in asked]
    launched: set[str] = set()

    def watched(kernel: Callable[..., object], name: str) -> Callable[..., object]:
        def launch(*given: object, **named: object) -> object:
            launched.add(name)
            return kernel(*given, **named)

        return launch

    for name in LAUNCHED[products]:
        cut = Cut(rows=32, columns=64, depth=32, group=2, warps=4, stages=2)
        monkeypatch.setattr(products, name, partial(getattr(products, name), cut=cut, approximate=False))
    for module, names in LAUNCHED.items():
        for name in names:
            monkeypatch.setattr(module, name, watched(getattr(module, name), name))
    # As on a Hopper, but for the type: in float32 nothing hides behind a rounding.
    monkeypatch.setattr(fused, "fuses", lambda _: True)
    monkeypatch.setattr(fused, "has_triton", lambda: True)
    monkeypatch.setattr(fused, "HALVES", (torch.float32,))
    monkeypatch.setattr(linear, "has_products", lambda _: True)
    monkeypatch.setattr(linear, "LEAST_TOKENS", 3)
    monkeypatch.setattr(linear, "LEAST_PATCHES", 1)
    monkeypatch.setattr("engines.qwen2vl.attention._is_half_on_gpu", lambda _: True)
    monkeypatch.setattr(tiles, "first_that_fits", lambda *_: Tile(64, 32, 4, 2))
    for shots, known in zip(asked, plain, strict=True):
        tokens, numbers = ask(runner, shots)
        assert tokens == known[0]
        torch.testing.assert_close(numbers, known[1], rtol=1e-4, atol=1e-5)
    assert launched == {name for names in LAUNCHED.values() for name in names}
