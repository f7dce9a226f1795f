"""The judge of checkpoints: its bars on readings made up here, and the whole tool on whole and damaged checkpoints."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engines.base import ShotReading
from engines.stations import Answer
from qwen_shots.errors import NotANumber
from qwen_shots.scoring import Reading
from scripts.check_model import checks, report, scenes
from scripts.check_model.__main__ import main
from scripts.check_model.checks import Check, Evidence
from tests import families
from tests.helpers import BUNDLED, LAST_NORM, damaged

NAMES = ("darkness", "motion")
LOST = NotANumber("no number")


def answer(value: float, caption: str = "A man walks.", mass: float = 0.9) -> ShotReading:
    readings = tuple(Reading(value + shift, 0.1, mass, value) for shift in (-0.01, 0.0, 0.01))
    return ShotReading(caption, dict.fromkeys(NAMES, readings))


def ladder(*values: float) -> list[Answer]:
    return [answer(value) for value in values]


GOOD = Evidence(
    attributes=NAMES,
    device="cuda",
    dtype="bfloat16",
    bad_weights=0,
    film=[answer(0.2, "A man walks."), answer(0.5, "A dog runs."), answer(0.9, "A house burns at night.")],
    cut=[False, False, False],
    exposure=[ladder(0.9, 0.6, 0.3), ladder(0.8, 0.5, 0.4)],
    speed=[ladder(0.1, 0.2, 0.3, 0.6)],
    together=ladder(0.3, 0.4),
    alone=ladder(0.301, 0.4),
    seconds=[0.1, 0.2, 9.0],
    other_dtype=[answer(0.21), answer(0.5), answer(0.9)],
)


def failed(found: Sequence[Check]) -> list[str]:
    return [check.name for check in found if not check.passed]


def test_a_good_model_passes_every_check() -> None:
    found = [check for judge in checks.FULL for check in judge(GOOD)]
    assert failed(found) == []
    # finite, numbers, captions, darkness, motion, spread, batch, type, time
    assert len(found) == 2 + 2 + 4 + 2 + 2 + 2 + 1 + 1 + 1


@pytest.mark.parametrize(
    ("judge", "change", "expected"),
    [
        (checks.finite, {"bad_weights": 1}, ["weights that are NaN or infinite"]),
        (checks.finite, {"together": [LOST, answer(0.1)]}, ["shots without a number"]),
        (
            checks.label_mass,
            {"film": [answer(0.5, mass=0.4)]},
            ["probability of a number: darkness", "probability of a number: motion"],
        ),
        (checks.captions, {"film": [answer(0.5, ". "), answer(0.5, "A.")]}, ["captions that are empty"]),
        (checks.captions, {"cut": [False, True, False]}, ["captions cut at the limit"]),
        (
            checks.captions,
            {"film": [answer(0.5, "A man walks and walks and walks and walks and walks.")]},
            ["repetition in the worst caption"],
        ),
        (checks.captions, {"film": ladder(0.1, 0.2, 0.3)}, ["different captions, of all"]),
        (
            checks.darkness,
            {"exposure": [ladder(0.3, 0.6, 0.9)]},
            ["darkness against exposure, Spearman", "darkness, fall over the exposures"],
        ),
        (checks.darkness, {"exposure": [ladder(0.55, 0.53, 0.5)]}, ["darkness, fall over the exposures"]),
        (
            checks.darkness,
            {"exposure": [ladder(0.5, 0.50001, 0.5)]},
            ["darkness against exposure, Spearman", "darkness, fall over the exposures"],
        ),
        (
            checks.darkness,
            {"exposure": [[*ladder(0.9, 0.8), LOST]]},
            ["darkness against exposure, Spearman", "darkness, fall over the exposures"],
        ),
        (checks.motion, {"speed": [ladder(0.1, 0.5, 0.2, 0.3)]}, ["motion against speed, Spearman"]),
        (checks.motion, {"speed": [ladder(0.1, 0.11, 0.12)]}, ["motion, rise over the speeds"]),
        (
            checks.spread,
            {"film": ladder(0.5, 0.51, 0.5)},
            ["spread over different shots: darkness", "spread over different shots: motion"],
        ),
        (checks.batch, {"alone": ladder(0.3, 0.45)}, ["alone or in a batch, largest change"]),
        (checks.batch, {"dtype": "float32", "alone": ladder(0.302, 0.4)}, ["alone or in a batch, largest change"]),
        (
            checks.batch,
            {"dtype": "float32", "alone": [answer(0.3), answer(0.4, "Other.")]},
            ["alone or in a batch, other captions"],
        ),
        (checks.dtypes, {"other_dtype": ladder(0.2, 0.55, 0.9)}, ["bfloat16 or float32, largest change"]),
        (checks.dtypes, {"other_dtype": [answer(0.2), LOST, answer(0.9)]}, ["bfloat16 or float32, largest change"]),
        (checks.duration, {"seconds": [2.0, 2.1, 0.1]}, ["seconds a shot, alone, cuda"]),
    ],
)
def test_what_fails(judge: Callable[[Evidence], list[Check]], change: dict[str, Any], expected: list[str]) -> None:
    assert failed(judge(replace(GOOD, **change))) == expected


def test_attributes_of_ones_own_need_no_darkness_or_motion() -> None:
    own = replace(GOOD, attributes=("joy",))
    assert checks.darkness(own) == checks.motion(own) == []


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("", 0, 0),
        ("A man in a dark coat walks down the wet street at night, the camera follows.", 0, 0),
        ("two people in a room by day, the camera pans left across the room", 0, 0.1),
        ("!!!!!!!!", 0.8, 1),
        ("the the the the the", 0.7, 1),
        ("ababababababababababab", 0.5, 1),
    ],
)
def test_repetition(text: str, low: float, high: float) -> None:
    assert low <= checks.repetition(text) <= high


def test_climb_is_spearmans_rank_correlation() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(4)
    for _ in range(20):
        scores = rng.integers(0, 5, 7) / 10
        expected = spearmanr(range(7), scores).statistic if len(set(scores)) > 1 else 0.0
        assert checks.climb(scores.tolist()) == pytest.approx(expected)


def test_the_scenes_are_what_they_say() -> None:
    assert {file.stem[:-2] for file in scenes.FRAMES.glob("*.jpg")} == set(scenes.FILM_SHOTS)
    shot = scenes.film_shot("dunes")
    light = [np.mean(scenes.exposed(shot, stops).pictures[0]) for stops in scenes.STOPS]
    assert light == sorted(light)
    assert light[-1] > 4 * light[0]
    np.testing.assert_allclose(scenes.exposed(shot, 0).pictures[1], shot.pictures[1], atol=1)
    still, fast = (scenes.panned(shot.pictures[0], speed).pictures for speed in (0.0, scenes.SPEEDS[-1]))
    assert {picture.shape for picture in (*still, *fast)} == {(204, 288, 3)}
    np.testing.assert_array_equal(still[0], still[2])
    np.testing.assert_array_equal(fast[0][:, 192:], fast[2][:, :96])


def test_the_table_tells_value_bar_and_verdict() -> None:
    text = report.table([Check("one", 0.51234, ">=", 0.5), Check("two", math.nan, "<=", 0)])
    assert [line.split() for line in text.splitlines()[2:]] == [
        ["one", "0.512", ">=", "0.5", "pass"],
        ["two", "none", "<=", "0", "FAIL"],
    ]


# --- the whole tool --------------------------------------------------------------------------------------------------


def judge_checkpoint(folder: str | Path, json_file: Path, *options: str) -> tuple[int, dict[str, bool]]:
    """Run the tool on the CPU; its exit code, and which checks passed."""
    code = main([str(folder), "--device", "cpu", "--json", str(json_file), *options])
    told = json.loads(json_file.read_text())
    assert told["passed"] == (code == 0) == all(check["passed"] for check in told["checks"])
    assert len(told["captions"]) == len(scenes.FILM_SHOTS)
    return code, {check["name"]: check["passed"] for check in told["checks"]}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pictures and short captions: enough to show damage, in a quarter of the time."""
    monkeypatch.setenv("QWEN_SERVER__MODEL__MAX_FRAME_TOKENS", "32")
    monkeypatch.setenv("QWEN_SERVER__MODEL__MAX_CAPTION_TOKENS", "8")


def test_the_bundled_checkpoint_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, passed = judge_checkpoint(BUNDLED, tmp_path / "told.json")
    out = capsys.readouterr().out
    assert code == 0, out
    assert f"{sum(passed.values())} of {len(passed)} checks pass" in out
    assert all(name in out for name in passed)
    # These hold for any checkpoint that the engine serves rightly, whatever it was taught.
    assert passed["weights that are NaN or infinite"]
    assert passed["shots without a number"]
    assert passed["alone or in a batch, largest change"]
    assert passed["alone or in a batch, other captions"]


@pytest.mark.usefixtures("small")
def test_a_weight_that_is_not_a_number(tmp_path: Path) -> None:
    def poison(name: str, weights: torch.Tensor) -> torch.Tensor:
        return weights * torch.nan if name.endswith(LAST_NORM) else weights

    code, passed = judge_checkpoint(damaged(tmp_path / "nan", poison), tmp_path / "told.json", "--quick")
    assert code == 1
    assert not passed["weights that are NaN or infinite"]
    assert not passed["shots without a number"]
    assert not passed["probability of a number: darkness"]
    assert not passed["darkness against exposure, Spearman"]


@pytest.mark.usefixtures("small")
def test_an_output_that_is_flat(tmp_path: Path) -> None:
    def flatten(name: str, weights: torch.Tensor) -> torch.Tensor:
        # The bundled checkpoint's output matrix is its input matrix; its last norm scales the output alone.
        return weights * 1e-3 if name.endswith(LAST_NORM) else weights

    code, passed = judge_checkpoint(damaged(tmp_path / "flat", flatten), tmp_path / "told.json", "--quick")
    assert code == 1
    assert passed["shots without a number"]
    assert not any(held for name, held in passed.items() if name.startswith("probability of a number"))


@pytest.mark.usefixtures("small")
def test_a_model_that_does_not_see(tmp_path: Path) -> None:
    def blind(name: str, weights: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(weights) if "merger.mlp.2" in name else weights

    code, passed = judge_checkpoint(damaged(tmp_path / "blind", blind), tmp_path / "told.json", "--quick")
    assert code == 1
    assert not passed["darkness against exposure, Spearman"]
    assert not passed["darkness, fall over the exposures"]
    assert not passed["different captions, of all"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("family", families.VISION)
def test_other_families_are_judged_too(family: str, tmp_path: Path) -> None:
    code, passed = judge_checkpoint(
        families.save_tiny_model(family, tmp_path / family), tmp_path / "told.json", "--quick"
    )
    assert code == 1  # random weights
    assert passed["shots without a number"]
    assert not passed["probability of a number: darkness"]


@pytest.mark.parametrize("arguments", [["./no/such/model"], ["Nobody/has-this-model"], ["samples"]])
def test_what_can_not_be_loaded(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--quick", "--device", "cpu"]) == 2
    assert "ERROR: " in capsys.readouterr().err


def test_a_wrong_command_line() -> None:
    with pytest.raises(SystemExit) as end:
        main(["--dtype", "float8"])
    assert end.value.code == 2
