"""Exit 0 when the server at the address that is given answers that it is healthy, else 1."""

from __future__ import annotations

import sys
import urllib.request


def main(address: str) -> int:
    """Ask once."""
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:  # noqa: S310 - our own address
            return 0 if answer.status == 200 else 1
    except OSError:
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
