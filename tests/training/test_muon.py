"""Our Muon does what torch's does."""

from __future__ import annotations

import torch

from training.muon import Muon, orthogonal


def test_steps_equal_torchs() -> None:
    torch.manual_seed(3)
    shapes = [(24, 40), (40, 24), (24, 40), (16, 16)]
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [torch.nn.Parameter(weights.detach().clone()) for weights in ours]
    mine = Muon(ours, lr=0.02, weight_decay=0.1)
    torchs = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        for our, their in zip(ours, theirs, strict=True):
            their.grad = our.grad = torch.randn(our.shape)
        mine.step()
        torchs.step()
    for our, their in zip(ours, theirs, strict=True):
        # Both multiply in bfloat16, in another order.
        torch.testing.assert_close(our, their, atol=2e-3, rtol=0)


def test_the_update_is_near_to_orthogonal() -> None:
    torch.manual_seed(3)
    values = torch.linalg.svdvals(orthogonal(torch.randn(2, 32, 64)).float())
    assert values.min() > 0.5
    assert values.max() < 1.4
