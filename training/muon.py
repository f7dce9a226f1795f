"""The Muon optimizer, all matrices of one shape at once.

torch.optim.Muon goes through the matrices one by one; for a hundred small ones the GPU then waits for the next launch
nearly all of the time (128 ms of a step of 283 ms on an H100). The arithmetic is the same, and a test compares the two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

# Newton-Schulz: five rounds of this polynomial take all singular values near to 1 (Jordan et al. 2024, "Muon").
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


def orthogonal(matrices: Tensor) -> Tensor:
    """The nearest orthogonal matrices, roughly.

    Args:
        matrices: of shape (count, rows, columns).

    Returns:
        bfloat16 of the same shape.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    nearest: Tensor = x.mT if tall else x
    return nearest


class Muon(torch.optim.Optimizer):
    """Momentum whose every update is made orthogonal.

    Args:
        matrices: parameters of two dimensions.
        lr: learning rate; an update's root mean square is 0.2 of it, as AdamW's is (Liu et al. 2025, arXiv 2502.16982).
        momentum: share of the old direction that is kept; Nesterov's look ahead.
        weight_decay: share of the weights that is lost a step, times the rate.
    """

    def __init__(
        self, matrices: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient; there is no closure to call."""
        for group in self.param_groups:
            for same_shape in _by_shape(group["params"]):
                self._step_stack(same_shape, group)

    def _step_stack(self, matrices: list[Tensor], group: dict[str, Any]) -> None:
        keep, rate = group["momentum"], group["lr"]
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        momenta = [self.state[matrix].setdefault("momentum", torch.zeros_like(matrix)) for matrix in matrices]
        torch._foreach_lerp_(momenta, gradients, 1 - keep)
        ahead = torch.stack(gradients).lerp(torch.stack(momenta), keep)
        rows, columns = matrices[0].shape
        updates = orthogonal(ahead).to(matrices[0].dtype) * (0.2 * max(rows, columns) ** 0.5)
        torch._foreach_mul_(matrices, 1 - rate * group["weight_decay"])
        torch._foreach_add_(matrices, list(updates.unbind()), alpha=-rate)


def _by_shape(matrices: Iterable[Tensor]) -> list[list[Tensor]]:
    shapes: defaultdict[torch.Size, list[Tensor]] = defaultdict(list)
    for matrix in matrices:
        if matrix.grad is not None:
            shapes[matrix.shape].append(matrix)
    return list(shapes.values())
