"""Matrix products and the small steps between them: in plain torch on a CPU, one kernel each on a GPU (`kernels`).

All of them may work in place: what goes in is not used again.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("qwen_server")

VISION_EPS = 1e-6
HALVES = (torch.bfloat16, torch.float16)

# What the kernels for a product with its activation were written for: GPUs with Hopper's matrix units. Below so many
# tokens cuBLAS and an activation of its own are faster (benchmarks/LOG.md).
HOPPER = 9
LEAST_TOKENS = 768
# Bytes that the rows of what the GPU copies by tiles begin at a multiple of.
ALIGNED = 16

Angles: TypeAlias = "tuple[Tensor, Tensor]"
"""Cosines and sines, float32 of shape (tokens, head width / 2) and contiguous."""


@dataclass(frozen=True, slots=True)
class Projection:
    """A root mean square norm and the linear layer behind it.

    Attributes:
        norm: (width,), the norm's weights.
        eps: the norm's.
        weight: (outputs, width).
        bias: (outputs,), where there is one.
    """

    norm: Tensor
    eps: float
    weight: Tensor
    bias: Tensor | None = None


@lru_cache(maxsize=1)
def _kernels() -> Any:
    """Not at import: Triton comes with torch for GPUs alone."""
    from engines.qwen2vl.kernels import steps

    return steps


@lru_cache(maxsize=1)
def has_triton() -> bool:
    """Whether kernels can be built for this process's GPU. Tried once; plain torch is slower and works as well."""
    return find_spec("triton") is not None and launches(torch.zeros(1, device="cuda"))


def launches(number: Tensor) -> bool:
    """Whether a kernel runs on this number. Triton compiles its way to the driver in C, here."""
    try:
        _kernels().quick_gelu(number)
    except Exception as error:  # of Triton, of the compiler, of the disk: the answer is the same
        log.warning(
            "the GPU's kernels can't be built here, so slower steps of torch take their place (%s: %s). They need a C "
            "compiler and Python's headers (on Debian and Ubuntu: apt-get install gcc python3-dev), and a folder that "
            "can be written (TRITON_CACHE_DIR)",
            type(error).__name__,
            error,
        )
        return False
    return True


def _fuses(x: Tensor) -> bool:
    return x.is_cuda and has_triton()


@lru_cache(maxsize=1)
def _products() -> Any:
    """As `_kernels`."""
    from engines.qwen2vl.kernels import products

    return products


@lru_cache(maxsize=1)
def _alone() -> Any:
    """As `_kernels`."""
    from engines.qwen2vl.kernels import alone

    return alone


def _is_alone(x: Tensor, *widths: int) -> bool:
    """Whether kernels for one token serve, in layers of such widths."""
    return len(x) == 1 and _fuses(x) and x.dtype in HALVES and bool(_alone().fits(*widths))


@lru_cache
def is_hopper(device: torch.device) -> bool:
    """Whether a GPU has the matrix units that `kernels.products` was written for."""
    return torch.cuda.get_device_capability(device)[0] == HOPPER


def _multiplies(x: Tensor, weight: Tensor, columns: int) -> bool:
    """Whether a kernel takes a product together with its activation.

    Args:
        x: (tokens, width).
        weight: (..., width).
        columns: of the answer.
    """
    if not (_fuses(x) and x.dtype in HALVES and len(x) >= LEAST_TOKENS and is_hopper(x.device)):
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
        cache: as for `turn`.
        places: as for `turn`.

    Returns:
        (tokens, heads of each, head width).
    """
    kept, width = cache.shape[2:]
    qkv = F.linear(rms_norm(x, project.norm, project.eps), project.weight, project.bias).view(len(x), -1, width)
    turn(qkv, angles, qkv.shape[1] - kept, cache, places)
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
    return linear_silu_times(rms_norm(x, gate_and_up.norm, gate_and_up.eps), gate_and_up.weight)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root mean square norm (Zhang and Sennrich 2019, arXiv 1910.07467), as Qwen2 rounds it."""
    if _fuses(x):
        normed: Tensor = _kernels().norm(x, weight, eps)
        return normed
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + eps)
    return weight * wide.to(x.dtype)


def layer_norm(x: Tensor, shift: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The layer norm of `x + shift` with the vision tower's epsilon.

    Args:
        x: (tokens, width).
        shift: float32 (width,).
        weight: (width,).
        bias: (width,).
    """
    if _fuses(x):
        normed: Tensor = _kernels().norm(x, weight, VISION_EPS, shift, bias)
        return normed
    return F.layer_norm((x + shift).to(x.dtype), weight.shape, weight, bias, VISION_EPS)


def linear_silu_times(x: Tensor, gate_and_up: Tensor) -> Tensor:
    """SwiGLU (Shazeer 2020, arXiv 2002.05202): silu of one linear layer, times another one.

    Args:
        x: (tokens, width).
        gate_and_up: (2 * inner width, width), the weights of both, those under silu first.

    Returns:
        (tokens, inner width).
    """
    if _multiplies(x, gate_and_up, len(gate_and_up) // 2):
        product: Tensor = _products().linear_silu_times(x, gate_and_up)
        return product
    return silu_times(F.linear(x, gate_and_up))


def silu_times(gate_and_up: Tensor) -> Tensor:
    """Silu of the first half of the last axis, times the second half."""
    if _fuses(gate_and_up):
        product: Tensor = _kernels().silu_times(gate_and_up)
        return product
    gate, up = gate_and_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def linear_quick_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer and its quick GELU.

    Args:
        x: (tokens, width).
        weight: (inner width, width).
        bias: (inner width,).

    Returns:
        (tokens, inner width).
    """
    if _multiplies(x, weight, len(weight)):
        product: Tensor = _products().linear_quick_gelu(x, weight, bias)
        return product
    return quick_gelu(F.linear(x, weight, bias))


def quick_gelu(x: Tensor) -> Tensor:
    """Hendrycks and Gimpel's sigmoid approximation of GELU (arXiv 1606.08415), as CLIP uses it."""
    if _fuses(x):
        bent: Tensor = _kernels().quick_gelu(x)
        return bent
    return x * torch.sigmoid(1.702 * x)


def turn(x: Tensor, angles: Angles, turned: int, cache: Tensor | None = None, places: Tensor | None = None) -> None:
    """Rotary embedding (Su et al. 2021, arXiv 2104.09864), in place; keys and values go to the cache.

    Args:
        x: (tokens, heads, width), contiguous: heads of queries, then of keys, then of values.
        angles: of each token.
        turned: how many heads turn: those of queries and keys.
        cache: (places, 2, key heads, width); None where nothing is kept.
        places: where in the cache the first tokens' keys and values go, as many as there are places.
    """
    if _fuses(x):
        _kernels().turn(x, angles, turned, cache, places)
        return
    one, other = x[:, :turned].float().chunk(2, dim=-1)
    cos, sin = (each[:, None] for each in angles)
    x[:, :turned] = torch.cat([one * cos - other * sin, other * cos + one * sin], dim=-1).to(x.dtype)
    if cache is not None and places is not None:
        kept = x.shape[1] - turned
        cache.index_copy_(0, places, x[: len(places), turned - kept :].view(len(places), 2, kept, -1))


def join(first: Tensor, first_mass: Tensor, second: Tensor, second_mass: Tensor) -> Tensor:
    """What attention over both sets of keys gives, from the answers over each: their mean, weighed by their masses.

    Args:
        first: (tokens, heads, width).
        first_mass: (heads, tokens), the logarithm of the softmax's denominator.
        second: as `first`.
        second_mass: as `first_mass`.
    """
    if _fuses(first):
        joined: Tensor = _kernels().join(first, first_mass, second, second_mass)
        return joined
    share = torch.sigmoid(first_mass - second_mass).T[..., None]
    return (first.float() * share + second.float() * (1 - share)).to(first.dtype)


def log_mass(logits: Tensor) -> Tensor:
    """Logarithm of the softmax's denominator over the last axis of (rows, vocabulary), float32."""
    if _fuses(logits):
        mass: Tensor = _kernels().log_mass(logits)
        return mass
    return logits.float().logsumexp(dim=-1)
