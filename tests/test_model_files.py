"""Checkpoints that are not whole are refused before a weight is read, each with what to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import save_file

from model_files import check_whole, find_files, hash_weights, read_ahead, weight_bytes, weight_files
from qwen_shots.errors import CannotLoad
from tests.helpers import BUNDLED, ROOT

REMEDY = "Copy it again."


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    shutil.copytree(ROOT / BUNDLED, folder)
    return folder


def drop(*patterns: str) -> Callable[[Path], None]:
    def break_it(folder: Path) -> None:
        for pattern in patterns:
            for file in folder.glob(pattern):
                file.unlink()

    return break_it


def truncate(folder: Path) -> None:
    (file := weight_files(folder)[-1]).write_bytes(file.read_bytes()[:-1])


def empty(folder: Path) -> None:
    weight_files(folder)[-1].write_bytes(b"")


def name_one_more(folder: Path) -> None:
    first = weight_files(folder)[0].name
    (folder / "model.safetensors.index.json").write_text(
        f'{{"weight_map": {{"a": "{first}", "b": "model-9-of-9.safetensors"}}}}'
    )


def spoil_the_index(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("{")


def pickle_alone(folder: Path) -> None:
    drop("*.safetensors", "*.index.json")(folder)
    (folder / "pytorch_model.bin").write_bytes(b"never read")


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (name_one_more, ("1 of 2 weight files", "model-9-of-9.safetensors", REMEDY)),
        (truncate, ("cut off or broken", REMEDY)),
        (empty, ("cut off or broken", REMEDY)),
        (spoil_the_index, ("index.json", "is broken")),
        (pickle_alone, ("pickled weights only", "can hold code", "*.safetensors")),
        (drop("*.safetensors", "*.index.json"), ("holds no *.safetensors file",)),
        (drop("config.json"), ("configuration is missing (config.json)", REMEDY)),
        (drop("tokenizer.json", "vocab.json"), ("tokenizer is missing", REMEDY)),
        (drop("preprocessor_config.json", "processor_config.json"), ("picture format is missing", REMEDY)),
    ],
)
def test_a_checkpoint_that_is_not_whole(
    checkpoint: Path, break_it: Callable[[Path], None], words: tuple[str, ...]
) -> None:
    check_whole("ours", checkpoint, REMEDY)
    break_it(checkpoint)
    with pytest.raises(CannotLoad) as caught:
        check_whole("ours", checkpoint, REMEDY)
    for word in words:
        assert word in caught.value.detail


def test_local_folders_are_checked_too(checkpoint: Path) -> None:
    assert find_files(str(checkpoint)) == checkpoint
    truncate(checkpoint)
    with pytest.raises(CannotLoad, match="cut off or broken"):
        find_files(str(checkpoint))


@pytest.mark.parametrize("name", ["./nowhere", "~nosuch/x", "./" + "x" * 300, "/" + "x" * 300, "./a\0b"])
def test_a_folder_that_is_not_there(name: str) -> None:
    with pytest.raises(CannotLoad, match="there is no folder"):
        find_files(name)


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_a_name_that_no_folder_can_have(name: str) -> None:
    with pytest.raises(CannotLoad, match="is not on this disk"):
        find_files(name)


@pytest.mark.parametrize(
    "index",
    [
        [],
        {},
        {"weight_map": ["a"]},
        {"weight_map": {"a": 1}},
        {"weight_map": {"a": None}},
        {"weight_map": {"a": ["x"]}},
        {"weight_map": {"a": "../model.safetensors"}},
        {"weight_map": {"a": "/model.safetensors"}},
        {"weight_map": {"a": "model.bin"}},
        {"weight_map": {"a": "x\0y.safetensors"}},
        {"weight_map": {"a": "x" * 5000 + ".safetensors"}},
    ],
)
def test_an_index_with_wrong_values(checkpoint: Path, index: object) -> None:
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CannotLoad, match=r"model\.safetensors\.index\.json is broken: "):
        find_files(str(checkpoint))


def test_a_configuration_that_is_not_utf_8(checkpoint: Path) -> None:
    text = (checkpoint / "config.json").read_text()
    (checkpoint / "config.json").write_text(text, encoding="utf-8-sig")
    assert find_files(str(checkpoint)) == checkpoint
    (checkpoint / "config.json").write_text(text, encoding="utf-16")
    with pytest.raises(CannotLoad, match=r"config\.json is cut off or broken"):
        find_files(str(checkpoint))


def test_memory_goes_by_the_dtype_that_is_loaded(tmp_path: Path) -> None:
    save_file(
        {"half": torch.zeros(3, 5, dtype=torch.bfloat16), "packed": torch.zeros(7, dtype=torch.int32)},
        tmp_path / "model.safetensors",
    )
    assert weight_bytes(tmp_path, 2) == 15 * 2 + 7 * 4
    assert weight_bytes(tmp_path, 4) == 15 * 4 + 7 * 4


def test_weights_are_read_ahead(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sendfile")  # each system has another one, macOS's writes to sockets alone

    def read_bytes() -> int:
        return int(psutil.Process().io_counters().read_chars)

    before = read_bytes()
    read_ahead(checkpoint).join()
    assert read_bytes() - before >= sum(file.stat().st_size for file in weight_files(checkpoint))


def test_reading_ahead_leaves_errors_to_loading(checkpoint: Path) -> None:
    (missing := weight_files(checkpoint)[0]).unlink()
    missing.mkdir()
    read_ahead(checkpoint).join()


def test_weights_have_one_hash_wherever_they_lie(checkpoint: Path, tmp_path: Path) -> None:
    """The hub's cache holds links to files that are named by their SHA-256."""
    cached = tmp_path / "snapshot"
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    shutil.copytree(checkpoint, cached)
    for file in cached.glob("*.safetensors"):
        hashed = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout.split()[0]
        file.rename(blobs / hashed)
        file.symlink_to(blobs / hashed)
    assert hash_weights(cached) == hash_weights(checkpoint) == hash_weights(ROOT / BUNDLED)


def test_any_bit_of_the_weights_changes_their_hash(checkpoint: Path) -> None:
    known = hash_weights(checkpoint)
    file = weight_files(checkpoint)[1]
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    assert hash_weights(checkpoint) != known
