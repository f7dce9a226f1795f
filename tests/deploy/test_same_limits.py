"""The plain server's own tests of what clients do over a real connection, here against Serve's proxy and the server."""

from __future__ import annotations

from urllib.parse import urlsplit

import httpx
import pytest

from engines.local import LocalEngine
from settings import Settings
from tests import test_hostile
from tests.deploy import cluster
from tests.test_hostile import *  # noqa: F403

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]


# Three rules are the proxy's own: a request has the name that its client asks for; a method that is not HTTP's (BREW)
# is a bad request; and a request whose client leaves at once ends there, so that only the proxy counts it.
del test_another_method  # noqa: F821
del test_a_clients_request_id_is_not_taken_over  # noqa: F821
del test_a_client_that_leaves_in_the_middle_of_a_batch  # noqa: F821
del test_a_client_that_leaves_in_the_middle_of_its_body  # noqa: F821


@pytest.mark.parametrize(("method", "path"), [("GET", "/analyze"), ("OPTIONS", "/analyze"), ("POST", "/metrics")])
def test_another_http_method(small: httpx.Client, method: str, path: str) -> None:
    test_hostile.test_another_method(small, method, path, "GET" if path == "/metrics" else "POST")


@pytest.fixture(scope="module")  # type: ignore[no-redef]
def port(cluster_url: str, settings: Settings) -> int:
    """The port of a server that takes bodies of 1 MiB and lets one shot wait."""
    limits = {"max_body_mib": 1, "max_queue_shots": 1}
    cluster.deploy(cluster_url, cluster.changed(settings, server=limits), LocalEngine)
    return urlsplit(cluster_url).port or 0
