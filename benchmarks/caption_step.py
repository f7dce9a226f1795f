"""A step of one caption on a GPU, product by product: `python -m benchmarks.caption_step`.

Layers of Qwen2-VL-2B's shape. Each product goes through the weights of all layers one after another, recorded as a
CUDA graph: those of one alone would be found in the GPU's cache. cuBLAS with the small steps around it is given two
rows, for so many the server takes it; the kernels for one token as the server takes them, and below in other ways.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from benchmarks.graph_clock import milliseconds_of
from benchmarks.noise import numbers_on_gpu
from engines.qwen2vl import fused, linear
from engines.qwen2vl.kernels import alone
from engines.qwen2vl.kernels.alone import Reading
from engines.qwen2vl.projection import Projection

LAYERS = 28
HIDDEN, INNER, HEADS, KEPT, WIDTH = 1536, 8960, 12, 2, 128
READINGS = (
    Reading(4, 2048, 8),
    Reading(4, 2048, 4),
    Reading(4, 1024, 2),
    Reading(4, 256, 1),
    Reading(8, 2048, 8),
    Reading(8, 512, 4),
    Reading(16, 512, 8),
)


class ForOneToken(Protocol):
    """A layer's product for one token."""

    def __call__(self, layer: int, reading: Reading) -> object:
        """Launch it."""


@dataclass(frozen=True, slots=True)
class Product:
    """A product of every layer.

    Attributes:
        bytes: of its weights in a layer.
        stepped: of one layer, by cuBLAS and small steps.
        alone: likewise, for one token.
    """

    bytes: int
    stepped: Callable[[int], object]
    alone: ForOneToken


def projections(outputs: int) -> list[Projection]:
    """Of every layer."""
    return [
        Projection(
            numbers_on_gpu(HIDDEN), 1e-6, numbers_on_gpu(outputs, HIDDEN) * HIDDEN**-0.5, numbers_on_gpu(outputs)
        )
        for _ in range(LAYERS)
    ]


def query_product() -> Product:
    """Norm, queries, keys and values, rotary embedding, what goes to the cache."""
    layers = projections((HEADS + 2 * KEPT) * WIDTH)
    x, cache, places = numbers_on_gpu(2, HIDDEN), numbers_on_gpu(9, 2, KEPT, WIDTH), torch.tensor([3, 5], device="cuda")
    cos, sin = torch.randn(2, 2, WIDTH // 2, device="cuda")
    return Product(
        2 * layers[0].weight.numel(),
        lambda layer: linear.norm_query(x, layers[layer], (cos, sin), cache, places),
        lambda layer, reading: alone.norm_query(
            x[:1], layers[layer], (cos[:1], sin[:1]), cache, places[:1], reading=reading
        ),
    )


def gate_product() -> Product:
    """Norm, gates and ups, SwiGLU."""
    layers, x = projections(2 * INNER), numbers_on_gpu(2, HIDDEN)
    return Product(
        2 * layers[0].weight.numel(),
        lambda layer: linear.norm_silu_times(x, layers[layer]),
        lambda layer, reading: alone.norm_silu_times(x[:1], layers[layer], reading=reading),
    )


def adding_product(inner: int) -> Product:
    """A product and the residual stream."""
    layers = [numbers_on_gpu(HIDDEN, inner) * inner**-0.5 for _ in range(LAYERS)]
    x, change = torch.zeros_like(numbers_on_gpu(2, HIDDEN)), numbers_on_gpu(2, inner) / LAYERS
    return Product(
        2 * layers[0].numel(),
        lambda layer: linear.add_linear(x, change, layers[layer]),
        lambda layer, reading: alone.add_linear(x[:1], change[:1], layers[layer], reading=reading),
    )


PRODUCTS: dict[str, Callable[[], Product]] = {
    "norm, queries, keys and values, turned and kept": query_product,
    "output of attention, added": lambda: adding_product(HIDDEN),
    "norm, gates and ups, SwiGLU": gate_product,
    "output of the layer, added": lambda: adding_product(INNER),
}


def microseconds_of(run: Callable[[int], object]) -> float:
    """Of one layer."""
    return 1000 * milliseconds_of(lambda: [run(layer) for layer in range(LAYERS)]) / LAYERS


def sweep(product: Product) -> dict[Reading, float]:
    """Microseconds of a layer for one token, by how its weights are read."""
    return {reading: microseconds_of(partial(product.alone, reading=reading)) for reading in READINGS}


def main(arguments: Sequence[str]) -> int:
    """Print the table; returns the exit code."""
    argparse.ArgumentParser(prog="benchmarks.caption_step", description=__doc__).parse_args(arguments)
    if not (torch.cuda.is_available() and fused.has_triton()):
        print("needs a GPU that Triton builds kernels for", file=sys.stderr)
        return 2
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    print("| a layer's | cuBLAS and small steps, us | for one token, us (TB/s) | times as fast |\n|---|---|---|---|")
    swept: list[str] = []
    for name, make in PRODUCTS.items():
        product = make()
        stepped = microseconds_of(product.stepped)
        each = sweep(product)
        ours = each[alone.READING]
        rate = product.bytes / ours / 1e6
        print(f"| {name} | {stepped:.1f} | {ours:.1f} ({rate:.2f}) | {stepped / ours:.2f} |", flush=True)
        ways = sorted(each, key=each.__getitem__)
        swept.append(f"{name}, us: " + "; ".join(f"{reading}: {each[reading]:.1f}" for reading in ways))
    print("\n" + "\n\n".join(swept))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
