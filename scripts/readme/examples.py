"""The examples of README.md: a fenced `sh` block with a curl command, and behind it a `json` block with its answer."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"

# The address that the README shows.
SHOWN_ADDRESS = "localhost:8000"

EXAMPLE = re.compile(r"```sh\n(?P<command>[^`]*\bcurl [^`]*)```\n\n```json\n(?P<answer>[^`]*)```\n")
WIDTH = 116
TIMEOUT_SECONDS = 120

# curl as in the README, followed by a line with the status.
CURL = "set -euo pipefail; curl() { command curl --write-out '\\n%{http_code}' \"$@\"; }\n"


@dataclass(frozen=True, slots=True)
class Example:
    """A command, and the answer that stands behind it.

    Attributes:
        command: a shell command that ends with curl.
        answer: the JSON text.
        span: where the answer stands in the README, in characters.
    """

    command: str
    answer: str
    span: tuple[int, int]


def find(text: str) -> list[Example]:
    """All examples of a Markdown text, in order."""
    return [Example(match["command"], match["answer"], match.span("answer")) for match in EXAMPLE.finditer(text)]


def run(command: str, address: str) -> tuple[int, Any]:
    """Run a command of the README as a user does, in bash, from the project's folder.

    Args:
        command: the shell command.
        address: host and port to ask instead of the one shown.

    Returns:
        The status and the decoded answer.

    Raises:
        subprocess.CalledProcessError: the command failed.
    """
    script = CURL + command.replace(SHOWN_ADDRESS, address)
    done = subprocess.run(  # noqa: S603 - the README's own commands
        ["bash", "-c", script],  # noqa: S607 - the bash that a user would use
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body)


def written(answer: Any, indent: str = "") -> str:
    """JSON as it stands in the README: on one line where it fits, else an item a line."""
    line = json.dumps(answer, ensure_ascii=False)
    if len(indent) + len(line) <= WIDTH or not isinstance(answer, dict | list) or not answer:
        return line
    deeper = indent + "  "
    if isinstance(answer, dict):
        items = [f"{json.dumps(name)}: {written(value, deeper)}" for name, value in answer.items()]
        return "{\n" + ",\n".join(deeper + item for item in items) + f"\n{indent}}}"
    return "[\n" + ",\n".join(deeper + written(item, deeper) for item in answer) + f"\n{indent}]"


def refreshed(text: str, address: str) -> str:
    """The Markdown text with every answer as the server at `address` gives it now."""
    for example in reversed(find(text)):
        _, answer = run(example.command, address)
        start, end = example.span
        text = f"{text[:start]}{written(answer)}\n{text[end:]}"
    return text
