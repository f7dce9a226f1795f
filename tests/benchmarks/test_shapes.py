"""Random weights as a folder: the server's own loader takes it, and no caption stops before the limit."""

from __future__ import annotations

from pathlib import Path

import pytest

import model_loader
from benchmarks import shapes
from settings import load_settings


@pytest.mark.filterwarnings("ignore")  # transformers has a word about tokens of the full vocabulary
def test_a_folder_that_the_server_can_load(tmp_path: Path) -> None:
    assert shapes.main(["--shape", "tiny", "--out", str(tmp_path / "tiny")]) == 0
    name = str(tmp_path / "tiny")
    model = load_settings(environ={"QWEN_SERVER__MODEL__NAME": name, "QWEN_SERVER__MODEL__DEVICE": "cpu"}).model
    folder = model_loader.find_files(model.name)
    loaded = model_loader.load(model, folder, model_loader.make_plan(model, folder))
    assert loaded.model.config.get_text_config().hidden_size == shapes.TINY["text_config"]["hidden_size"]
    assert loaded.model.generation_config.eos_token_id is None
    assert loaded.tokenizer.eos_token is None
    assert loaded.tokenizer.chat_template
    assert loaded.pictures.max_tokens(4096) == 4096
