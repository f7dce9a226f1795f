"""The small steps between the matrix products: in plain torch on a CPU, one kernel each on a GPU (`kernels`).

All of them may work in place: what goes in is not used again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
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

Angles: TypeAlias = "tuple[Tensor, Tensor]"
"""Cosines and sines, float32 of shape (tokens, head width / 2) and contiguous."""


@lru_cache(maxsize=1)
def _kernels() -> Any:
    """Not at import: Triton comes with torch for GPUs alone."""
    from engines.qwen2vl.kernels import steps

    return steps


@lru_cache(maxsize=1)
def has_triton() -> bool:
    """Whether kernels can be built for this process's GPU. Tried once; plain torch is slower and works as well."""
    return find_spec("triton") is not None and launches(lambda: _kernels().quick_gelu(torch.zeros(1, device="cuda")))


def launches(kernel: Callable[[], object]) -> bool:
    """Whether a kernel can be built and launched; a warning where not. Triton compiles its way to the driver in C."""
    try:
        kernel()
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


def fuses(x: Tensor) -> bool:
    """Whether a step over this tensor is a kernel of its own."""
    return x.is_cuda and has_triton()


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root mean square norm (Zhang and Sennrich 2019, arXiv 1910.07467), as Qwen2 rounds it."""
    if fuses(x):
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
    if fuses(x):
        normed: Tensor = _kernels().norm(x, weight, VISION_EPS, shift, bias)
        return normed
    return F.layer_norm((x + shift).to(x.dtype), weight.shape, weight, bias, VISION_EPS)


def silu_times(gate_and_up: Tensor) -> Tensor:
    """Silu of the first half of the last axis, times the second half."""
    if fuses(gate_and_up):
        product: Tensor = _kernels().silu_times(gate_and_up)
        return product
    gate, up = gate_and_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def quick_gelu(x: Tensor) -> Tensor:
    """Hendrycks and Gimpel's sigmoid approximation of GELU (arXiv 1606.08415), as CLIP uses it."""
    if fuses(x):
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
    if fuses(x):
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
    if fuses(first):
        joined: Tensor = _kernels().join(first, first_mass, second, second_mass)
        return joined
    share = torch.sigmoid(first_mass - second_mass).T[..., None]
    return (first.float() * share + second.float() * (1 - share)).to(first.dtype)


def log_mass(logits: Tensor) -> Tensor:
    """Logarithm of the softmax's denominator over the last axis of (rows, vocabulary), float32."""
    if fuses(logits):
        mass: Tensor = _kernels().log_mass(logits)
        return mass
    return logits.float().logsumexp(dim=-1)
