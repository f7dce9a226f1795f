"""What counts as a found cut, and that the films have the cuts that they are said to have."""

from __future__ import annotations

from pathlib import Path

from benchmarks.cut_films import Border, Kind, all_kinds
from benchmarks.cuts import Score, borders, score, table


def test_each_border_counts_once_and_within_its_slack() -> None:
    kind = Kind((Border(50), Border(100, slack=6)), optional=(Border(150, slack=2),))
    assert score(kind, [50, 100]) == Score(2, 2, 2)
    assert score(kind, [51, 107]) == Score(2, 2, 2)
    assert score(kind, [52, 108]) == Score(0, 2, 2)
    assert score(kind, [49, 50, 100]) == Score(2, 3, 2)
    assert score(kind, [50, 100, 151]) == Score(2, 2, 2)
    assert score(Kind(()), []).f1 == 1
    assert str(score(kind, [50, 70])) == "0.50 0.50 **0.50**"


def test_the_table_has_a_row_a_kind() -> None:
    assert table({"fog": {"one": Score(1, 1, 2)}}).splitlines()[-1] == "| fog | 1.00 0.50 **0.67** |"


def test_flashes_and_hard_cuts_are_told_apart(tmp_path: Path) -> None:
    kind = all_kinds()["explosions"]
    found = borders(kind.write(tmp_path / "film.mkv"), ["structure"])["structure"]
    assert score(kind, found).f1 > 0.97
