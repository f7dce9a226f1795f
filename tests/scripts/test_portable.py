"""The scripts that users run keep to what Linux and macOS have in common: POSIX options, bash 3.2."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers import ROOT

SCRIPTS = [*ROOT.glob("*.sh"), *(ROOT / "scripts").glob("*.sh")]
# What macOS's tools or its bash 3.2 do not know, or know by another meaning.
FOREIGN = re.compile(
    r"""
    \b(?:stat|flock|timeout|nproc|setsid|realpath|tac|shuf|gdate)\b[ ]
    | \breadlink[ ]+-[a-z]*[fe] | \bsed[ ]+(?:-[a-zA-Z]+[ ]+)*-i | \bdate[ ]+-[dI] | \bxargs[ ]+(?:-\w+[ ]+)*-[rd]
    | \bgrep[ ]+-[a-zA-Z]*P | \bsort[ ]+-[a-zA-Z]*V | \bcp[ ]+--\w | \bls[ ]+--\w | \bps[ ]+--\w | \btail[ ]+--\w
    | \bmktemp[ ]+--\w | \bdf[ ]+--\w | \b(?:head|tail)[ ]+-n[ ]+-
    | \bmapfile\b | \breadarray\b | \b(?:declare|local|typeset)[ ]+-[a-zA-Z]*[An] | \$\{\w+(?:\^|,)
    | \|& | &>> | \bcoproc\b | \bwait[ ]+-n | \bEPOCH(?:SECONDS|REALTIME)\b | \$\{\w+@
    """,
    re.VERBOSE,
)


def foreign(text: str) -> list[str]:
    """Lines of a script, comments left out, that are not for both systems."""
    return [line for line in text.splitlines() if FOREIGN.search(line.partition(" # ")[0]) and line.strip()[:1] != "#"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_is_for_linux_and_macos(script: Path) -> None:
    assert foreign(script.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "stat -L -c '%n' file", "mapfile -t all < <(list)", "sed -i s/a/b/ file", "readlink -f here", "flock 9",
        "date -d yesterday", "local -A names", "echo ${name^^}", "find . | xargs -r rm", "declare -n other=name",
    ],
)  # fmt: skip
def test_what_is_foreign_is_found(line: str) -> None:
    assert foreign(line) == [line]
