"""Linear layers with their activation on a GPU, in two steps and in one kernel: `python -m benchmarks.products`.

Layers of Qwen2-VL-2B's shape, so many tokens as one shot and a full batch have, and fewer. Every way is recorded as a
CUDA graph and replayed. The one kernel is given as the server takes it, and below each table in other cuts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from benchmarks.graph_clock import milliseconds_of
from benchmarks.noise import numbers_on_gpu
from engines.qwen2vl import fused, linear
from engines.qwen2vl.kernels import products
from engines.qwen2vl.kernels.products import Cut

TOKENS = {"quick GELU": (128, 512, 1008, 3024, 65_520), "SwiGLU": (128, 512, 936, 1872, 119_808)}
CUTS = (
    *(Cut(128, 256, 64, group, 8, 3) for group in (2, 4, 8, 16)),
    Cut(128, 256, 64, 8, 8, 2),
    Cut(256, 128, 64, 8, 8, 3),
    Cut(128, 128, 64, 8, 4, 3),
)
CHECKED = 512  # tokens that are also worked out in float64


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer over some tokens.

    Attributes:
        operations: of its product.
        product: cuBLAS' product alone.
        stepped: and an activation of its own.
        joined: all in one kernel, cut in that way.
        exact: in float64, of the first tokens.
        cut: the server's.
    """

    operations: float
    product: Callable[[], torch.Tensor]
    stepped: Callable[[], torch.Tensor]
    joined: Callable[[Cut], torch.Tensor]
    exact: Callable[[], torch.Tensor]
    cut: Cut


def quick_gelu_layer(tokens: int) -> Layer:
    """The vision tower's, 1280 to 5120."""
    x, weight, bias = numbers_on_gpu(tokens, 1280), numbers_on_gpu(5120, 1280) * 1280**-0.5, numbers_on_gpu(5120)

    def exact() -> torch.Tensor:
        bent = functional.linear(x[:CHECKED].double(), weight.double(), bias.double())
        return bent * torch.sigmoid(1.702 * bent)

    return Layer(
        2 * tokens * weight.numel(),
        lambda: functional.linear(x, weight, bias),
        lambda: fused.quick_gelu(functional.linear(x, weight, bias)),
        lambda cut: products.linear_quick_gelu(x, weight, bias, cut=cut),
        exact,
        products.QUICK_GELU_CUT,
    )


def silu_times_layer(tokens: int) -> Layer:
    """The text side's, 1536 to twice 8960."""
    x, both = numbers_on_gpu(tokens, 1536), numbers_on_gpu(2 * 8960, 1536) * 1536**-0.5

    def exact() -> torch.Tensor:
        gate, up = functional.linear(x[:CHECKED].double(), both.double()).chunk(2, dim=1)
        return functional.silu(gate) * up

    return Layer(
        2 * tokens * both.numel(),
        lambda: functional.linear(x, both),
        lambda: fused.silu_times(functional.linear(x, both)),
        lambda cut: products.linear_silu_times(x, both, cut=cut),
        exact,
        products.SILU_CUT,
    )


LAYERS: dict[str, Callable[[int], Layer]] = {"quick GELU": quick_gelu_layer, "SwiGLU": silu_times_layer}


def row_of(tokens: int, layer: Layer) -> str:
    """A row of the table."""
    product, stepped = milliseconds_of(layer.product), milliseconds_of(layer.stepped)
    joined = milliseconds_of(lambda: layer.joined(layer.cut))
    rates = [layer.operations / each / 1e9 for each in (product, joined)]
    exact = layer.exact()
    off = [_off(answer, exact) for answer in (layer.stepped(), layer.joined(layer.cut))]
    return (
        f"| {tokens} | {product:.4f} ({rates[0]:.0f}) | {stepped:.4f} | {joined:.4f} ({rates[1]:.0f}) "
        f"| {stepped / joined:.2f} | {off[0]:.2e} | {off[1]:.2e} |"
    )


def _off(answer: torch.Tensor, exact: torch.Tensor) -> float:
    """Root mean square."""
    return float((answer[: len(exact)] - exact).square().mean().sqrt())


def swept(layer: Layer) -> str:
    """Every cut, the fastest first, and which can't be built here."""
    return "\n".join(line for _, line in sorted(_tried(layer, cut) for cut in CUTS))


def _tried(layer: Layer, cut: Cut) -> tuple[float, str]:
    try:
        milliseconds = milliseconds_of(lambda: layer.joined(cut))
    except Exception as error:  # a cut that is too large, a compiler that can't
        return float("inf"), f"{cut}: {type(error).__name__}"
    return milliseconds, f"{cut}: {milliseconds:.3f} ms"


def main(arguments: Sequence[str]) -> int:
    """Print a table for each layer; returns the exit code."""
    argparse.ArgumentParser(prog="benchmarks.products", description=__doc__).parse_args(arguments)
    if not (torch.cuda.is_available() and linear.is_hopper(torch.device("cuda"))):
        print("needs a Hopper GPU: an H100, an H200", file=sys.stderr)
        return 2
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; off: root mean square, from float64")
    for name, make in LAYERS.items():
        print(f"\n## {name}\n")
        print("| tokens | product alone, ms (TFLOP/s) | and its activation | one kernel | times as fast | off | off |")
        print("|---|---|---|---|---|---|---|")
        for tokens in TOKENS[name]:
            layer = make(tokens)
            print(row_of(tokens, layer), flush=True)
        print(f"\n{swept(layer)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
