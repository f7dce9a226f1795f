"""The benchmark of waiting threads: each way beside each neighbour, against the first way beside the same one."""

from __future__ import annotations

import pytest

from benchmarks import waiting


def test_each_row_stands_against_spinning_beside_the_same_neighbours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(waiting, "_time_there", lambda policy, shots: (2.0, 1.0) if policy else (5.0, 4.0))
    assert waiting.main(["--busy", "0", "1"]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[-4:]]
    assert [row[2:] for row in rows] == [["5.00", "4.00", "1.0 |"], ["2.00", "1.00", "2.5 |"]] * 2
    assert [row[0] for row in rows] == ["| 0", "| 0", "| 1", "| 1"]


def test_a_process_of_its_own_tells_its_times() -> None:
    wall, cpu = waiting._time_there("PASSIVE", 1)
    assert wall > 0
    assert cpu > 0
