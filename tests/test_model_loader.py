"""Where a model goes, decided for machines that this one is not, and weights that are missing."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import model_loader
from engines.base import ShotPictures, ShotReading
from engines.pixels import to_patches
from engines.runner import ModelRunner
from model_files import weight_bytes, weight_files
from model_loader import Plan, make_plan
from qwen_shots.errors import CannotLoad
from settings import ModelSettings, Settings
from tests import families
from tests.helpers import BUNDLED, ROOT

FOLDER = ROOT / BUNDLED
WORK = model_loader.BYTES_FOR_WORK
HUGE = 80 * 1024**3


def plan(gpus: list[int], **changes: Any) -> Plan:
    changes = {"name": BUNDLED, "dtype": "bfloat16"} | changes
    return make_plan(ModelSettings(**changes), FOLDER, gpus)


def smallest(dtype_bytes: int) -> int:
    """Bytes of the smallest GPU on which the bundled checkpoint fits."""
    return int(weight_bytes(FOLDER, dtype_bytes) * model_loader.ROOM_FOR_WORK + WORK) + 1


def test_a_copy_on_each_gpu_where_it_fits() -> None:
    assert plan([HUGE] * 4) == Plan("cuda", replicas=4, shard=False, gpu_memory=(HUGE,) * 4)
    assert (plan([HUGE] * 4).gpu_count, plan([HUGE] * 4).gpu_memory_bytes) == (4, 4 * HUGE)


def test_one_copy_over_all_gpus_where_it_does_not_fit_on_the_smallest() -> None:
    assert plan([HUGE, WORK]) == Plan("cuda", replicas=1, shard=True, gpu_memory=(HUGE, WORK))
    assert plan([HUGE, HUGE], placement="shard").shard
    # Nothing to spread over: spreading would put layers into the CPU's memory without a word.
    assert not plan([WORK]).shard
    assert not plan([HUGE], placement="shard").shard


def test_what_fits_depends_on_the_dtype() -> None:
    card = smallest(2)
    assert not plan([card, card], dtype="bfloat16").shard
    assert plan([card, card], dtype="float32").shard
    assert plan([card - 2, card - 2], dtype="bfloat16").shard
    assert not plan([smallest(4)] * 2, dtype="float32").shard


def test_replicate_is_refused_where_it_does_not_fit() -> None:
    assert plan([HUGE, HUGE], placement="replicate").replicas == 2
    with pytest.raises(CannotLoad, match=r"model.placement is replicate, but .* Set model.placement to shard"):
        plan([HUGE, WORK], placement="replicate")


def test_no_gpu_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    assert plan([]) == Plan("cpu", replicas=1, shard=False)
    assert [record.getMessage() for record in caplog.records] == [
        "model.device is cuda, but no GPU is seen: falling back to the CPU, which is far slower"
    ]
    caplog.clear()
    assert plan([HUGE], device="cpu") == Plan("cpu", replicas=1, shard=False)
    assert caplog.records == []


@pytest.mark.parametrize("family", ["qwen2_vl", *families.VISION])
def test_grey_levels_are_kept_in_16_bits(family: str, settings: Settings, tmp_path: Path) -> None:
    """Pixels in bfloat16 would be off by 0.3 % of a patch's numbers; what is rounded here is the outcome alone."""
    folder = FOLDER if family == "qwen2_vl" else families.save_tiny_model(family, tmp_path)
    model = ModelSettings(name=str(folder), device="cpu", dtype="bfloat16")
    loaded = model_loader.load(model, folder, make_plan(model, folder))
    spec = loaded.pictures
    foggy = np.random.default_rng(1).integers(36, 56, (2 * spec.factor, 3 * spec.factor, 3), dtype=np.uint8)
    patches = torch.from_numpy(to_patches([foggy], spec))
    embed = loaded.model.model.visual.patch_embed
    embedded = embed(patches)
    weight, bias = embed.proj.weight.double().flatten(1), embed.proj.bias
    exact = torch.nn.functional.linear(patches.double(), weight, None if bias is None else bias.double())
    assert torch.equal(embed.proj.weight, embed.proj.weight.bfloat16())
    assert embedded.dtype == loaded.dtype == torch.bfloat16
    torch.testing.assert_close(embedded.double(), exact, rtol=2**-8, atol=1e-5)
    # And the layers behind it take what it gives.
    (answer,) = ModelRunner(loaded, settings.attributes, 4).look([ShotPictures((foggy,) * 3)])
    assert isinstance(answer, ShotReading)


def test_float16_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    settings = ModelSettings(name=BUNDLED, device="cpu", dtype="float16")
    with caplog.at_level(logging.WARNING, "model_loader"):
        for rank in (0, 1):
            loaded = model_loader.load(settings, FOLDER, make_plan(settings, FOLDER), rank)
    assert loaded.dtype == torch.float16
    assert sum("overflows" in record.getMessage() for record in caplog.records) == 1


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "checkpoint")
    folder = tmp_path / "checkpoint"
    file = weight_files(folder)[0]
    tensors = load_file(file)
    lost = next(key for key in sorted(tensors) if "layers.0." in key or "blocks.0." in key)
    del tensors[lost]
    save_file(tensors, file, {"format": "pt"})
    settings = ModelSettings(name="ours", device="cpu")
    with pytest.raises(CannotLoad, match=r"ours can't be loaded: 1 of its weights"):
        model_loader.load(settings, folder, make_plan(settings, folder))


def test_the_picture_format_needs_no_weights(tmp_path: Path) -> None:
    from transformers import AutoConfig

    for file in ("config.json", "preprocessor_config.json"):
        shutil.copy(FOLDER / file, tmp_path)
    own = model_loader.read_picture_spec(FOLDER, AutoConfig.from_pretrained(FOLDER))
    assert model_loader.find_picture_spec(str(tmp_path)) == own


def test_a_picture_format_that_lacks_something(tmp_path: Path) -> None:
    values = json.loads((FOLDER / "preprocessor_config.json").read_text())
    del values["merge_size"]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    with pytest.raises(CannotLoad, match="merge_size: field required"):
        model_loader.find_picture_spec(str(tmp_path))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"image_mean": "0.5"}, "image_mean: input should be a valid tuple"),
        ({"image_mean": 0.5}, "image_mean: input should be a valid tuple"),
        ({"image_mean": None}, "image_mean: input should be a valid tuple"),
        ({"image_mean": [0.5, 0.5]}, "image_mean.2: field required"),
        ({"image_mean": ["0.5", "0.5", "0.5"]}, "image_mean.0: input should be a valid number"),
        ({"image_mean": [float("nan")] * 3}, "image_mean.0: input should be a finite number"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std.1: input should be greater than 0"),
        ({"max_pixels": None, "size": [1]}, "size must be an object"),
        ({"max_pixels": None, "size": {"longest_edge": "x"}}, "max_pixels: input should be a valid integer"),
        ({"max_pixels": "x"}, "max_pixels: input should be a valid integer"),
        ({"max_pixels": 783}, "max_pixels must be 784 or more"),
        ({"max_pixels": -1}, "max_pixels must be 784 or more"),
        ({"patch_size": "14"}, "patch_size: input should be a valid integer"),
        ({"patch_size": 0}, "patch_size: input should be greater than or equal to 1"),
        ({"patch_size": None}, "patch_size: input should be a valid integer"),
    ],
)
def test_a_picture_format_with_wrong_values(tmp_path: Path, values: dict[str, Any], words: str) -> None:
    known = json.loads((FOLDER / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(known | values))
    with pytest.raises(CannotLoad) as caught:
        model_loader.find_picture_spec(str(tmp_path))
    prefix = f"model.name: {tmp_path} can't be loaded: the checkpoint's picture format is wrong: "
    assert caught.value.detail.startswith(prefix + words)
    assert "\n" not in caught.value.detail


def test_a_picture_format_with_a_byte_order_mark(tmp_path: Path) -> None:
    text = (FOLDER / "preprocessor_config.json").read_text()
    (tmp_path / "preprocessor_config.json").write_text(text, encoding="utf-8-sig")
    assert model_loader.find_picture_spec(str(tmp_path)) == model_loader.find_picture_spec(str(FOLDER))
    (tmp_path / "preprocessor_config.json").write_text(text, encoding="utf-16")
    with pytest.raises(CannotLoad, match=r"preprocessor_config\.json is broken: it holds no JSON object in UTF-8"):
        model_loader.find_picture_spec(str(tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP tells how it was set up")
@pytest.mark.parametrize(("chosen", "taken"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_torchs_threads_sleep_while_they_wait_unless_told_otherwise(chosen: dict[str, str], taken: str) -> None:
    plain = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environ = plain | {"OMP_DISPLAY_ENV": "true"} | chosen
    command = [sys.executable, "-c", "import model_loader, torch"]
    said = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True).stderr
    assert f"OMP_WAIT_POLICY = '{taken}'" in said


def test_torch_takes_no_more_threads_than_the_cores_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setattr("model_loader.usable_cores", lambda: 1)
    try:
        torch.set_num_threads(2)
        settings = ModelSettings(name=BUNDLED, device="cpu", dtype="float32")
        model_loader.load(settings, FOLDER, make_plan(settings, FOLDER))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
