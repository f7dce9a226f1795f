"""Judge a checkpoint: a table of measured values against bars.

Exit code 0: all pass. 1: some check failed. 2: the model can't be loaded, or the command line or settings are wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from qwen_shots.errors import CannotLoad, InvalidSettings
from scripts.check_model import checks, report, scenes
from scripts.check_model.evidence import gather
from settings import ModelSettings, Settings, load_settings

FAILED, UNUSABLE = 1, 2


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        settings = _settings(asked)
        seen = gather(settings, quick=asked.quick)
    except (CannotLoad, InvalidSettings) as error:
        print(f"ERROR: {error.detail}", file=sys.stderr)
        return UNUSABLE
    except RuntimeError as error:
        # Out of memory, or a GPU that is beyond use; the library's own words say it best.
        print(f"ERROR: the model can't be used here: {error}", file=sys.stderr)
        return UNUSABLE
    results = [check for judge in (checks.QUICK if asked.quick else checks.FULL) for check in judge(seen)]
    _show(settings.model.name, seen, results)
    if asked.json:
        asked.json.write_text(report.as_json(settings.model.name, seen, results), encoding="utf-8")
    return 0 if all(check.passed for check in results) else FAILED


def _show(model: str, seen: checks.Evidence, results: Sequence[checks.Check]) -> None:
    print(f"{model}, {seen.dtype} on {seen.device}\n")
    print(report.table(results))
    print()
    for name, caption in zip(scenes.FILM_SHOTS, seen.captions, strict=True):
        print(f"{name + ':':<11}{caption}")
    failed = sum(not check.passed for check in results)
    print(f"\n{len(results) - failed} of {len(results)} checks pass" + (f", {failed} FAIL" if failed else ""))


def _settings(asked: argparse.Namespace) -> Settings:
    settings = load_settings()
    given = {"name": asked.model, "device": asked.device, "dtype": asked.dtype}
    model = settings.model.model_copy(update={key: value for key, value in given.items() if value})
    return settings.model_copy(update={"model": model})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="check_model", description=__doc__)
    parser.add_argument("model", nargs="?", help="a hub name or a folder; without it, the one that is configured")
    parser.add_argument("--quick", action="store_true", help="numbers, captions and darkness only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table to a file, for machines")
    parser.add_argument("--device", choices=_choices("device"), help="without it, as configured")
    parser.add_argument("--dtype", choices=_choices("dtype"), help="without it, as configured")
    return parser


def _choices(setting: str) -> tuple[str, ...]:
    choices: tuple[str, ...] = get_args(ModelSettings.model_fields[setting].annotation)
    return choices


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
