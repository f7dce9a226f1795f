"""The bundled checkpoint keeps what its card promises, on scenes that it was never trained on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen2VLForConditionalGeneration

from engines.base import ShotPictures
from tests.helpers import BUNDLED, ROOT
from training.card import BARS as SCORE_BARS
from training.card import BEGIN, END, FILM_BARS, LARGEST_MOVE, NAMED_BARS, OTHER_BARS, SECONDS, write_tables
from training.evaluate import RESULTS, load
from training.film.scenes import PLACES
from training.judge_scenes import ask, judge, known_shots, of_shot

FOLDER = ROOT / BUNDLED
CARD = ROOT / "models/README.md"
# Not the seeds of the card's figures.
SEED = 2_100_000_000
SHOTS = 40


def test_size_and_format() -> None:
    model, report = Qwen2VLForConditionalGeneration.from_pretrained(FOLDER, output_loading_info=True)
    assert sum(weights.numel() for weights in model.parameters()) <= 20_000_000
    assert {weights.dtype for weights in model.parameters()} == {torch.bfloat16}
    assert not any(report.values())
    files = list(FOLDER.iterdir())
    assert sum(file.stat().st_size for file in files) <= 40_000_000
    assert max(file.stat().st_size for file in files) <= 16 * 2**20
    assert not [file for file in files if file.suffix in (".py", ".bin", ".pt", ".pkl")]
    text = model.config.get_text_config()
    assert text.hidden_size // text.num_attention_heads >= 64


def test_it_sees() -> None:
    """The card's bars, lowered by what so few shots may miss them by."""
    runner, _ = load("float32")
    truth = known_shots(SEED, SHOTS, PLACES)
    found = judge(list(ask(runner, truth.shots)), truth)
    for name, value in found.spearman.items():
        assert value >= SCORE_BARS.get(name, OTHER_BARS)[0] - 0.05, (name, value)
    for name, share in found.named.items():
        assert share >= 0.8, (name, share)
    assert found.error["expected value"] < found.error["likeliest answer"] < found.error["always 0.5"]


def test_bfloat16_sees_as_much_in_fog() -> None:
    """Twenty grey levels, where the rounding of pixels shows most: it moved a score by 0.044 here."""
    shots = [
        ShotPictures(tuple((36 + picture // 13).astype(np.uint8) for picture in shot.pictures))
        for shot in known_shots(SEED, SHOTS, PLACES).shots[::10]
    ]
    exact, rounded = (list(ask(load(dtype)[0], shots)) for dtype in ("float32", "bfloat16"))
    moves = [np.abs(of_shot(one) - of_shot(other)).max() for one, other in zip(exact, rounded, strict=True)]
    assert max(moves) <= LARGEST_MOVE


def test_the_cards_figures_meet_its_bars() -> None:
    figures = json.loads(RESULTS.read_text())
    for kind, column in (("seen", 0), ("unseen", 1)):
        for name, value in figures[kind]["spearman"].items():
            assert value >= SCORE_BARS.get(name, OTHER_BARS)[column], (kind, name)
        for name, bars in NAMED_BARS.items():
            assert figures[kind]["named"][name] >= (bars[column] or 0), (kind, name)
    for name, bar in FILM_BARS.items():
        assert figures["by_shot"][name] >= bar
    assert figures["largest_move"]["shot"] <= LARGEST_MOVE
    assert figures["seconds"] <= SECONDS


def test_the_card_holds_the_figures(tmp_path: Path) -> None:
    copy = tmp_path / "card.md"
    copy.write_text(CARD.read_text())
    write_tables(copy, json.loads(RESULTS.read_text()))
    assert copy.read_text() == CARD.read_text()
    copy.write_text(f"a\n{BEGIN}\nold\n{END}\nb\n")
    write_tables(copy, json.loads(RESULTS.read_text()))
    assert "old" not in copy.read_text()
    assert copy.read_text().endswith(f"{END}\nb\n")
    copy.write_text("no marks")
    with pytest.raises(ValueError, match="no marks"):
        write_tables(copy, json.loads(RESULTS.read_text()))


def test_a_missed_bar_is_told(tmp_path: Path) -> None:
    figures = json.loads(RESULTS.read_text())
    figures["seen"]["spearman"]["motion"] = 0.5
    copy = tmp_path / "card.md"
    copy.write_text(f"{BEGIN}\n{END}\n")
    write_tables(copy, figures)
    assert "**0.500 (missed)**" in copy.read_text()
