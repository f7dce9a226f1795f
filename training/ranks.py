"""Spearman's rank correlation, with ties sharing their mean rank."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def spearman(one: ArrayLike, other: ArrayLike) -> float:
    """Correlation of two series' ranks, -1..1; 0 where one of them is constant.

    Raises:
        ValueError: different lengths, or fewer than two values.
    """
    a, b = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError("two series of one length, of two values or more")
    ranks = [_ranks(series) for series in (a, b)]
    spread = [rank.std() for rank in ranks]
    if min(spread) == 0:
        return 0.0
    covariance = np.mean((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean()))
    return float(covariance / (spread[0] * spread[1]))


def _ranks(series: NDArray[np.float64]) -> NDArray[np.float64]:
    _, places, counts = np.unique(series, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[places], dtype=np.float64)
