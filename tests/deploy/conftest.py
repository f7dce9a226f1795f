"""One cluster for all tests of this folder that are marked `ray`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from tests.deploy import cluster


@pytest.fixture(scope="package")
def cluster_url() -> Iterator[str]:
    """The address of Serve's proxy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray's own code has some
        pytest.importorskip("ray.serve")
    with cluster.running_cluster() as url:
        yield url
