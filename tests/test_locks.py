"""The lock files agree, and the server's holds a hash for each file that pip may take."""

from __future__ import annotations

import re

from tests.helpers import ROOT

PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)(?:\[[a-z,]+\])?==(\S+)", re.MULTILINE)


def pins(name: str) -> set[tuple[str, str]]:
    return set(PIN.findall((ROOT / name).read_text(encoding="utf-8")))


def test_the_servers_lock_takes_no_other_versions_than_the_whole_one() -> None:
    assert pins("requirements-server.lock") <= pins("requirements.lock")


def test_the_servers_lock_holds_all_that_is_asked_for_and_hashes_for_each() -> None:
    wanted = set(
        re.findall(r"^[a-z0-9-]+", (ROOT / "requirements.txt").read_text().lower().replace("_", "-"), re.MULTILINE)
    )
    text = (ROOT / "requirements-server.lock").read_text(encoding="utf-8")
    assert wanted <= {name.replace("_", "-") for name, _ in PIN.findall(text)}
    entries = re.split(r"\n(?=[a-z0-9])", text.strip())
    assert len(entries) > 50
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
