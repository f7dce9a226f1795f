"""The table for people and the JSON for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

from scripts.check_model.checks import Check, Evidence

HEADINGS = ("check", "measured", "bar", "")


def table(checks: Sequence[Check]) -> str:
    """One line a check: measured value, bar, and whether it holds."""
    rows = [HEADINGS, *((c.name, _number(c.value), f"{c.side} {_number(c.bar)}", _verdict(c)) for c in checks)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = [
        f"{name:<{widths[0]}}  {value:>{widths[1]}}  {bar:<{widths[2]}}  {verdict}".rstrip()
        for name, value, bar, verdict in rows
    ]
    return "\n".join([lines[0], "-" * (sum(widths) + 6), *lines[1:]])


def as_json(model: str, seen: Evidence, checks: Sequence[Check]) -> str:
    """The same, with the captions; null where nothing could be measured."""
    values = {
        "model": model,
        "device": seen.device,
        "dtype": seen.dtype,
        "passed": all(check.passed for check in checks),
        "checks": [
            {
                "name": check.name,
                "value": check.value if math.isfinite(check.value) else None,
                "side": check.side,
                "bar": check.bar,
                "passed": check.passed,
            }
            for check in checks
        ],
        "captions": seen.captions,
    }
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def _verdict(check: Check) -> str:
    return "pass" if check.passed else "FAIL"


def _number(value: float) -> str:
    if math.isnan(value):
        return "none"
    return str(round(value)) if value == round(value) else f"{value:.3g}"
