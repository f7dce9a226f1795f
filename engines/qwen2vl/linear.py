"""Linear layers together with the small steps around them: one kernel each where there is one for such a GPU and as
many tokens (`kernels`), else a product of torch's and the steps of `fused`.

None of them changes what goes in but `add_linear`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from engines.qwen2vl import fused

if TYPE_CHECKING:
    from torch import Tensor

    from engines.qwen2vl.fused import Angles
    from engines.qwen2vl.projection import Projection

# What the kernels for a product with its activation were written for: GPUs with Hopper's matrix units. Below so many
# tokens of text, or patches of pictures, cuBLAS and an activation of its own are faster (benchmarks/LOG.md).
HOPPER = 9
LEAST_TOKENS = 768
LEAST_PATCHES = 2048
# Bytes that the rows of what the GPU copies by tiles begin at a multiple of.
ALIGNED = 16
# Rows, columns and depth of a product that is only tried out.
SAMPLE = 64


@lru_cache(maxsize=1)
def _products() -> Any:
    """Not at import: Triton comes with torch for GPUs alone."""
    from engines.qwen2vl.kernels import products

    return products


@lru_cache(maxsize=1)
def _alone() -> Any:
    """As `_products`."""
    from engines.qwen2vl.kernels import alone

    return alone


def _is_alone(x: Tensor, *widths: int) -> bool:
    """Whether kernels for one token serve, in layers of such widths."""
    return len(x) == 1 and fused.fuses(x) and x.dtype in fused.HALVES and bool(_alone().fits(*widths))


def is_hopper(device: torch.device) -> bool:
    """Whether a GPU has the matrix units that `kernels.products` was written for."""
    return torch.cuda.get_device_capability(device)[0] == HOPPER


@lru_cache
def has_products(device: torch.device) -> bool:
    """Whether `kernels.products` can be built for a GPU. Tried once, on few numbers."""

    def try_out() -> None:
        few = torch.zeros(SAMPLE, SAMPLE, dtype=torch.bfloat16, device=device)
        _products().linear_quick_gelu(few, few, few[0])
        torch.cuda.synchronize(device)

    return is_hopper(device) and fused.launches(try_out)


def _multiplies(x: Tensor, weight: Tensor, columns: int) -> bool:
    """Whether a kernel takes a product together with its activation.

    Args:
        x: (tokens, width).
        weight: (..., width).
        columns: of the answer.
    """
    if not (fused.fuses(x) and x.dtype in fused.HALVES and has_products(x.device)):
        return False
    rows = (x.shape[1] * x.element_size(), columns * x.element_size())
    aligned = all(place % ALIGNED == 0 for place in (x.data_ptr(), weight.data_ptr(), *rows))
    return aligned and x.is_contiguous() and weight.is_contiguous()


def add_linear(x: Tensor, change: Tensor, weight: Tensor) -> None:
    """Add a linear layer without its bias to the residual stream, in place: the product's kernel adds as it writes.

    Args:
        x: (tokens, width), contiguous.
        change: (tokens, inner width), contiguous.
        weight: (width, inner width).
    """
    if _is_alone(x, *weight.shape):
        _alone().add_linear(x, change, weight)
    else:
        x.addmm_(change, weight.t())


def norm_qkv(x: Tensor, project: Projection, angles: Angles, cache: Tensor, places: Tensor) -> Tensor:
    """Queries, keys and values of a layer, turned; the first tokens' keys and values go to the cache.

    Args:
        x: (tokens, width), the residual stream.
        project: to the heads of queries, then of keys, then of values.
        angles: of each token.
        cache: as for `fused.turn`.
        places: as for `fused.turn`.

    Returns:
        (tokens, heads of each, head width).
    """
    kept, width = cache.shape[2:]
    qkv = F.linear(fused.rms_norm(x, project.norm, project.eps), project.weight, project.bias).view(len(x), -1, width)
    fused.turn(qkv, angles, qkv.shape[1] - kept, cache, places)
    return qkv


def norm_query(x: Tensor, project: Projection, angles: Angles, cache: Tensor, places: Tensor) -> Tensor:
    """The queries of `norm_qkv`, (tokens, heads, head width); keys and values of all tokens go to the cache."""
    kept, width = cache.shape[2:]
    if _is_alone(x, *project.weight.shape, width):
        query: Tensor = _alone().norm_query(x, project, angles, cache, places)
        return query
    qkv = norm_qkv(x, project, angles, cache, places)
    return qkv[:, : qkv.shape[1] - 2 * kept]


def norm_silu_times(x: Tensor, gate_and_up: Projection) -> Tensor:
    """`linear_silu_times` of the residual stream behind its norm: (tokens, inner width)."""
    if _is_alone(x, *gate_and_up.weight.shape):
        gated: Tensor = _alone().norm_silu_times(x, gate_and_up)
        return gated
    return linear_silu_times(fused.rms_norm(x, gate_and_up.norm, gate_and_up.eps), gate_and_up.weight)


def linear_silu_times(x: Tensor, gate_and_up: Tensor) -> Tensor:
    """SwiGLU (Shazeer 2020, arXiv 2002.05202): silu of one linear layer, times another one.

    Args:
        x: (tokens, width).
        gate_and_up: (2 * inner width, width), the weights of both, those under silu first.

    Returns:
        (tokens, inner width).
    """
    if len(x) >= LEAST_TOKENS and _multiplies(x, gate_and_up, len(gate_and_up) // 2):
        product: Tensor = _products().linear_silu_times(x, gate_and_up)
        return product
    return fused.silu_times(F.linear(x, gate_and_up))


def linear_quick_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer and its quick GELU.

    Args:
        x: (tokens, width).
        weight: (inner width, width).
        bias: (inner width,).

    Returns:
        (tokens, inner width).
    """
    if len(x) >= LEAST_PATCHES and _multiplies(x, weight, len(weight)):
        product: Tensor = _products().linear_quick_gelu(x, weight, bias)
        return product
    return fused.quick_gelu(F.linear(x, weight, bias))
