"""The real server around a real engine process without a model, which takes a known time and goes wrong as told.

`python -m benchmarks.stress.serve PLAN`, PLAN a JSON object with the fields of `tests.engines.faulty.Plan`.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from unittest.mock import patch

from server import create_app
from serving import process
from tests.engines import faulty
from tests.engines.faulty import Plan


def main(text: str) -> int:
    """Run until told to stop; returns the exit code."""
    told = json.loads(text)
    calls = told.pop("calls", None)
    plan = Plan(**told | {"count": Path(told["count"]), "calls": None if calls is None else frozenset(calls)})
    with patch("engines.worker.main", partial(faulty.main, plan)):
        return process.main(create_app)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
