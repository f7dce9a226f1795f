"""The fleet that is played through: what must hold whatever the times are, and the page that shows it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import fleet as script
from benchmarks.fleet import Fleet, Play, machine_rate, machines_for, row
from tests.helpers import ROOT

PAGE = (ROOT / "docs/sizing.md").read_text(encoding="utf-8")
QUICK = Fleet(rate=15, batches=8)


def test_one_gpu_is_as_fast_as_it_is() -> None:
    outcome = Play(replace(QUICK, jitter=0.0)).run()
    assert outcome.rate == pytest.approx(QUICK.rate, rel=0.03)
    assert outcome.limit == "GPUs"


def test_gpus_add_up_while_nothing_else_is_full() -> None:
    outcome = Play(replace(QUICK, gpus=16, slow=0.0)).run()
    assert outcome.share == pytest.approx(1.0, abs=0.04)


@pytest.mark.parametrize(
    ("stage", "fleet"),
    [
        ("ingress", replace(QUICK, gpus=16, machines=1, ingress_ms=200.0)),
        ("link", replace(QUICK, gpus=16, machines=1, gbit=0.5)),
        ("proxy", replace(QUICK, gpus=16, machines=1, proxy_ms=20.0)),
    ],
    ids=["ingress", "link", "proxy"],
)
def test_the_fullest_stage_sets_the_rate(stage: str, fleet: Fleet) -> None:
    outcome = Play(fleet).run()
    assert outcome.limit == stage
    assert outcome.rate == pytest.approx(machine_rate(fleet)[stage], rel=0.05)


def test_as_many_machines_as_are_not_too_busy() -> None:
    fleet = replace(QUICK, gpus=64)
    assert machines_for(fleet) == 3
    outcome = Play(fleet).run()
    assert all(outcome.busy[stage] < 0.75 for stage in ("link", "proxy", "ingress"))


def test_stragglers_cost_the_slowest_requests_most() -> None:
    even, uneven = (Play(replace(QUICK, gpus=50, slow=slow)).run() for slow in (0.0, 0.02))
    assert uneven.worst > 1.5 * even.worst
    assert uneven.rate > 0.95 * even.rate


@pytest.mark.parametrize("gpus", [1, 4, 16])
@pytest.mark.parametrize("rate", [15, 60])
def test_the_page_shows_what_the_script_says(gpus: int, rate: float) -> None:
    fleet = Fleet(gpus=gpus, rate=rate)
    assert row(fleet, Play(fleet).run()) in PAGE, "run: make bench-fleet"


def test_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--gpus", "1", "2", "--batches", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("| 1 |", "| 2 |")) for line in lines) == 2 * len(script.scenarios(Fleet()))
