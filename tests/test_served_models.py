"""Checkpoints that are not served are refused at start, each in one sentence that says what is."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

from engines import worker
from engines.questions import Questions
from model_files import check_whole, find_files
from model_loader import load_failures
from qwen_shots.errors import CannotLoad, NotServed
from served_models import FAMILIES, check_served
from settings import Settings
from tests.helpers import BUNDLED, ROOT

FAMILY = ("Qwen2-VL", "Qwen2.5-VL", "Qwen3-VL")

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ROOT / BUNDLED, tmp_path / "checkpoint"))


def edit(folder: Path, change: Edit, file: str = "config.json") -> None:
    values = json.loads((folder / file).read_text())
    change(values)
    (folder / file).write_text(json.dumps(values))


def refusal(folder: Path) -> str:
    with pytest.raises(NotServed) as caught:
        find_files(str(folder))
    return one_sentence(caught.value)


def one_sentence(error: CannotLoad) -> str:
    assert "\n" not in error.detail
    assert ". " not in error.detail
    for family in FAMILY:
        assert family in error.detail
    return error.detail


@pytest.mark.parametrize(
    ("values", "method"),
    [
        ({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}, "awq"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes"),
        ({"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}, "fp8"),
        ({"quantization_config": {"quant_method": "compressed-tensors", "format": "naive"}}, "compressed-tensors"),
        ({"compression_config": {"format": "pack-quantized"}}, "pack-quantized"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "unknown"),
        ({"quantization_config": {"quant_method": "a\nb <script>"}}, "unknown"),
        ({"text_config": {"quantization_config": {"quant_method": "awq"}}}, "awq"),
    ],
)  # fmt: skip
def test_quantized_checkpoints(checkpoint: Path, values: dict[str, Any], method: str) -> None:
    edit(checkpoint, lambda config: config.update(values))
    assert f"is quantized ({method}" in refusal(checkpoint)


def test_one_that_says_so_in_a_file_of_its_own(checkpoint: Path) -> None:
    (checkpoint / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "NVFP4"}}')
    assert "is quantized (NVFP4)" in refusal(checkpoint)


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.int8, torch.uint8])
def test_one_that_does_not_say_so(checkpoint: Path, kind: torch.dtype) -> None:
    for file in checkpoint.glob("*.safetensors*"):
        file.unlink()
    save_file({"layer.weight": torch.zeros(2, 2).to(kind)}, checkpoint / "model.safetensors")
    assert "is quantized (its weights are" in refusal(checkpoint)


def test_an_integer_that_is_no_weight_is_none(checkpoint: Path) -> None:
    for file in checkpoint.glob("*.safetensors*"):
        file.unlink()
    tensors = {
        "layer.weight": torch.zeros(2, 2, dtype=torch.bfloat16),
        "position_ids": torch.zeros(2, dtype=torch.long),
    }
    save_file(tensors, checkpoint / "model.safetensors")
    check_whole("ours", checkpoint, "")


@pytest.mark.parametrize("family", ["qwen3_5", "qwen3_5_moe", "qwen2", "llava", "gemma3", "qwen2_5_omni", None, 7, []])
def test_other_families(checkpoint: Path, family: object) -> None:
    edit(checkpoint, lambda config: config.update(model_type=family))
    known = family if isinstance(family, str) else "unknown"
    assert f"is of the family {known}" in refusal(checkpoint)


@pytest.mark.parametrize("family", FAMILIES)
def test_families_that_are_served(tmp_path: Path, family: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family, "quantization_config": None}))
    check_served("ours", tmp_path)


def questions(settings: Settings, template: Callable[[str], str]) -> Questions:
    tokenizer = AutoTokenizer.from_pretrained(ROOT / BUNDLED)
    tokenizer.chat_template = template((ROOT / BUNDLED / "chat_template.jinja").read_text())
    return Questions(tokenizer, tokenizer.convert_tokens_to_ids("<|image_pad|>"), settings.attributes)


def thinking(opened: str) -> Callable[[str], str]:
    """A template whose answer begins with this."""
    return lambda template: template.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n" + opened)


@pytest.mark.parametrize("opened", ["<think>\n", "<think>\n\n</think>\n<think>"])
def test_thoughts_that_can_not_be_switched_off(settings: Settings, opened: str) -> None:
    with pytest.raises(NotServed) as caught:
        questions(settings, thinking(opened)).prefix([1])
    assert "thinks before it answers" in one_sentence(caught.value)


def test_thoughts_that_can_be_switched_off_are(settings: Settings) -> None:
    """As Qwen3's own template does it."""
    off = "{% if enable_thinking is defined and enable_thinking is false %}"
    asked = questions(settings, thinking(off + "<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"))
    assert asked._tokenizer.decode(asked.prefix([1])).endswith("<think>\n\n</think>\n\n")


@pytest.mark.parametrize("template", ["{% if %}", "{{ messages.nothing.at_all }}", "{{ raise_exception('no') }}"])
def test_a_template_that_can_not_be_rendered(settings: Settings, template: str) -> None:
    with pytest.raises(CannotLoad, match="chat template can't be rendered"):
        questions(settings, lambda _: template).prefix([1])


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"{", b"", b"[]", b"\xff\xfe\x00", b"[" * 100_000])
def test_broken_files(checkpoint: Path, name: str, content: bytes) -> None:
    (checkpoint / name).write_bytes(content)
    with pytest.raises(CannotLoad, match=rf"is not whole: {name} is cut off or broken\. Copy"):
        find_files(str(checkpoint))


def test_a_tokenizer_that_is_none(checkpoint: Path, settings: Settings) -> None:
    (checkpoint / "tokenizer.json").write_text('{"model": 3}')
    ours = settings.model_copy(update={"model": settings.model.model_copy(update={"name": str(checkpoint)})})
    with pytest.raises(CannotLoad, match="tokenizer can't be read"):
        worker._load(ours, rank=0)


def load_failure(folder: Path, settings: Settings) -> str:
    """What the engine process sends the server when the checkpoint can't be loaded."""
    ours = settings.model_copy(update={"model": settings.model.model_copy(update={"name": str(folder)})})
    with pytest.raises(CannotLoad) as caught, load_failures(str(folder)):
        worker._load(ours, rank=0)
    return caught.value.detail


def text(**values: object) -> Edit:
    return lambda config: config["text_config"].update(values)


def vision(**values: object) -> Edit:
    return lambda config: config["vision_config"].update(values)


def top(**values: object) -> Edit:
    return lambda config: config.update(values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (text(hidden_size="896"), "hidden_size"),
        (text(hidden_size=0), ""),
        (text(hidden_size=192), "of its weights have another shape than its config.json says"),
        (text(num_attention_heads=0), ""),
        (text(hidden_act="nothing"), "nothing"),
        (text(rope_parameters=None), ""),
        (top(vision_config=[]), "vision_config"),
        (top(vision_config="x"), "vision_config"),
        (top(text_config=[1]), "text_config"),
        (top(image_token_id=None), "image_token_id"),
        (top(image_token_id=5), "does not place one picture token"),
        (vision(patch_size="14"), "patch_size"),
        (vision(patch_size=None), "patch_size"),
        (vision(num_heads=0), ""),
    ],
)
def test_values_of_the_wrong_kind_in_the_configuration(
    checkpoint: Path, settings: Settings, caplog: pytest.LogCaptureFixture, change: Edit, words: str
) -> None:
    edit(checkpoint, change)
    check_is_one_line(load_failure(checkpoint, settings), checkpoint, words)
    assert not [record for record in caplog.records if record.exc_info and record.levelno >= logging.INFO]
    assert not [record for record in caplog.records if "\n" in record.getMessage()]


def check_is_one_line(detail: str, folder: Path, words: str) -> None:
    assert detail.startswith(f"model.name: {folder} can't be loaded: ")
    assert words in detail
    assert "\n" not in detail
    assert "ignore_mismatched_sizes" not in detail


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("generation_config.json", {"eos_token_id": "x"}),
        ("tokenizer_config.json", {"tokenizer_class": 5}),
        ("preprocessor_config.json", {"image_mean": "0.5"}),
    ],
)
def test_values_of_the_wrong_kind_in_other_files(
    checkpoint: Path, settings: Settings, file: str, values: dict[str, Any]
) -> None:
    edit(checkpoint, lambda config: config.update(values), file)
    check_is_one_line(load_failure(checkpoint, settings), checkpoint, "")
