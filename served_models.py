"""Which checkpoints are served, as far as their files say; others are refused before a weight is read.

A family that is not listed here may well load, and answer wrongly: quantized weights without their scales, layers whose
state one question leaves to the next, an answer that begins with thoughts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qwen_shots.errors import CannotLoad, NotServed

# By `model_type` in config.json.
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")
SERVED = (
    "the models served are Qwen2-VL, Qwen2.5-VL and Qwen3-VL (-Instruct) with weights that are not quantized, such as "
    "Qwen/Qwen2-VL-2B-Instruct"
)

# Where checkpoints say how they were quantized: transformers, older compressed-tensors, MLX; and the files of older
# GPTQ and AWQ checkpoints and of ModelOpt.
QUANTIZED_KEYS = ("quantization_config", "compression_config", "quantization")
QUANTIZED_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
PLAIN_TYPES = ("F64", "F32", "F16", "BF16")
WEIGHT_ENDINGS = ("weight", "weight_packed")
METHOD_KEYS = ("quant_method", "quant_algo", "format")
# What may be shown of a file's own words.
WORD = re.compile(r"[A-Za-z0-9_.+-]{1,40}")

UNCLOSED_THOUGHT = re.compile(r"<think>(?!.*</think>)", re.DOTALL)


def check_served(name: str, folder: Path) -> None:
    """See that a checkpoint is of a family and a format that are served. Reads no weights.

    Args:
        name: how the settings name the model.
        folder: with its config.json, and its other files of JSON where they are there already.

    Raises:
        NotServed: it is not; the message is one sentence that says what is served.
    """
    config = read_json(folder / "config.json")
    family = config.get("model_type")
    if family not in FAMILIES:
        raise _refusal(name, f"is of the family {_word(family)}")
    if method := _quantized(config, folder):
        raise _refusal(name, f"is quantized ({method})")


def check_answers_at_once(prompt: str) -> None:
    """See that a prompt does not leave the model in the middle of a thought, where the first token is no answer.

    Args:
        prompt: as the chat template renders it with thinking switched off.

    Raises:
        NotServed: it does.
    """
    if UNCLOSED_THOUGHT.search(prompt):
        raise _refusal("the model", "thinks before it answers, which its chat template can't switch off")


def check_number_type(name: str, key: str, kind: str) -> None:
    """See that a weight is a plain float: not every quantized checkpoint says that it is one.

    Args:
        name: how the settings name the model.
        key: of the tensor.
        kind: as safetensors calls its type, such as BF16.

    Raises:
        NotServed: it is quantized.
    """
    if key.endswith(WEIGHT_ENDINGS) and kind not in PLAIN_TYPES:
        raise _refusal(name, f"is quantized (its weights are {kind})")


def _refusal(name: str, what: str) -> NotServed:
    """One sentence that says what the model is and what is served."""
    return NotServed(f"model.name: {name} {what}; {SERVED}")


def _quantized(config: dict[str, Any], folder: Path) -> str | None:
    """How the weights are quantized; None where nothing says that they are."""
    for part in _with_parts(config):
        for key in QUANTIZED_KEYS:
            if part.get(key):
                return _method(part[key])
    for file in QUANTIZED_FILES:
        if (folder / file).exists():
            return _method(read_json(folder / file))
    return None


def _with_parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A configuration, and those of the text and the vision side in it."""
    yield config
    yield from (part for part in config.values() if isinstance(part, dict))


def _method(values: object) -> str:
    known = values if isinstance(values, dict) else {}
    nested = known.get("quantization")
    parts = [known, nested] if isinstance(nested, dict) else [known]
    found = (part[key] for part in parts for key in METHOD_KEYS if key in part)
    return _word(next(found, None))


def _word(value: object) -> str:
    return value if isinstance(value, str) and WORD.fullmatch(value) else "unknown"


def read_json(file: Path) -> dict[str, Any]:
    """Read one of a checkpoint's JSON files.

    Raises:
        CannotLoad: it holds no object, or is not UTF-8; the message names the file.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError, OSError):
        values = None
    if not isinstance(values, dict):
        raise CannotLoad(f"the file {file} is broken: it holds no JSON object in UTF-8")
    return values
