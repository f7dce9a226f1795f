"""Exit 0 when the server answers that it is healthy, else 1: the one at the address, or that of the configuration."""

from __future__ import annotations

import http.client
import sys
import urllib.request
from collections.abc import Sequence

from settings import load_settings, local_address

TIMEOUT_SECONDS = 5


def main(arguments: Sequence[str]) -> int:
    """Ask once, and past any proxy: the server is on this machine."""
    address = arguments[0] if arguments else local_address(load_settings())
    ask = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    try:
        with ask(f"{address}/health", timeout=TIMEOUT_SECONDS) as answer:
            return 0 if answer.status == 200 else 1
    except (OSError, http.client.HTTPException):
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
