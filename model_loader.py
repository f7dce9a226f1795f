"""From settings to a loaded model: which files, which numbers, which device, one copy or many.

Weights come from safetensors only and never with code of the checkpoint's own. torch and transformers are imported
when they are used, so that the server's own process can ask for a download without them.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_shots.errors import CannotLoad, QwenShotsError
from settings import ModelSettings, load_settings

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

HERE = Path(__file__).parent

# What a checkpoint needs. Pickled weights and Python files are never asked for.
WANTED_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "merges.txt", "vocab.json"]

# Beside the weights: activations, the cache of a full batch and the allocator's slack.
ROOM_FOR_WORK = 1.3
BYTES_FOR_WORK = 4 * 1024**3


@dataclass(frozen=True, slots=True)
class PictureSpec:
    """How a family of models wants its pictures.

    Attributes:
        patch: side of a patch in pixels.
        merge: patches a side that make one token.
        temporal: how often a still picture is repeated in time.
        mean: per channel, subtracted after scaling to 0..1.
        std: per channel, divided by after that.
    """

    patch: int
    merge: int
    temporal: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def factor(self) -> int:
        """Side of one token in pixels: 28 for Qwen2-VL."""
        return self.patch * self.merge


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that is ready to be asked.

    Attributes:
        model: a transformers `...ForConditionalGeneration` in evaluation mode.
        tokenizer: its tokenizer, with a chat template.
        pictures: how it wants its pictures.
    """

    model: Any
    tokenizer: Any
    pictures: PictureSpec


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the model goes: `replicas` engine processes on `device`, each with a whole copy unless `shard`."""

    device: str
    replicas: int
    shard: bool
    gpu_memory_bytes: int | None = None

    @property
    def gpu_count(self) -> int:
        """GPUs in use."""
        if self.device == "cpu":
            return 0
        return self.replicas if not self.shard else _gpu_count()


# --- files -----------------------------------------------------------------------------------------------------------


def local_folder(name: str) -> Path | None:
    """The folder that `model.name` means, relative to here or to this project; None for a hub name.

    Raises:
        CannotLoad: the name can only be a path, and there is no such folder; or the folder holds no safetensors.
    """
    for folder in (Path(name).expanduser(), HERE / name):
        if folder.is_dir():
            if not any(folder.glob("*.safetensors")):
                raise CannotLoad(f"model.name: the folder {name} holds no *.safetensors file")
            return folder
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise CannotLoad(f"model.name: there is no folder {name}")
    return None


def find_files(name: str) -> Path:
    """The folder with the model's files, from this disk alone.

    Raises:
        CannotLoad: it is not there (whole); the message says how to get it.
    """
    if folder := local_folder(name):
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=WANTED_FILES, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):
        raise CannotLoad(f"the model {name} is not on this disk. {_how_to_fetch(name)}") from None
    _check_complete(name, folder)
    return folder


def download(name: str) -> Path:
    """Fetch the model from the Hugging Face hub with a progress bar; a broken download resumes where it stopped.

    Raises:
        CannotLoad: it can't be fetched; the message names the model, the source and the way by hand.
    """
    if folder := local_folder(name):
        return folder
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=WANTED_FILES))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CannotLoad(
            f"the model {name} could not be fetched from {constants.ENDPOINT} ({type(error).__name__}). "
            f"{_how_to_fetch(name)}"
        ) from error
    _check_complete(name, folder)
    return folder


def _how_to_fetch(name: str) -> str:
    return (
        "Run ./setup.sh to fetch it (it resumes), or on a machine with internet: "
        f"hf download {name} --local-dir qwen-model, copy that folder here and set model.name to it. "
        "To try the server without a download: ./start_server.sh --demo"
    )


def _check_complete(name: str, folder: Path) -> None:
    """An index names every shard; a snapshot that was broken off lacks some."""
    shards = {file.name for file in folder.glob("*.safetensors")}
    index = folder / "model.safetensors.index.json"
    wanted = set(json.loads(index.read_text())["weight_map"].values()) if index.exists() else {"model.safetensors"}
    if missing := wanted - shards:
        raise CannotLoad(
            f"the model {name} is not whole on this disk: {len(missing)} of {len(wanted)} weight files are missing. "
            f"{_how_to_fetch(name)}"
        )


# --- device ----------------------------------------------------------------------------------------------------------


def _gpu_count() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def make_plan(settings: ModelSettings, folder: Path) -> Plan:
    """Decide the device and the placement.

    Raises:
        CannotLoad: `placement: replicate` is asked for and the model does not fit on one GPU.
    """
    gpus = _gpu_count() if settings.device == "cuda" else 0
    if gpus == 0:
        if settings.device == "cuda":
            log.warning("model.device is cuda, but no GPU is seen: falling back to the CPU, which is far slower")
        return Plan("cpu", replicas=1, shard=False)
    import torch

    memory = [torch.cuda.get_device_properties(index).total_memory for index in range(gpus)]
    fits = weight_bytes(folder) * ROOM_FOR_WORK + BYTES_FOR_WORK <= min(memory)
    shard = settings.placement == "shard" or (settings.placement == "auto" and not fits and gpus > 1)
    return Plan("cuda", replicas=1 if shard else gpus, shard=shard, gpu_memory_bytes=sum(memory))


def weight_bytes(folder: Path) -> int:
    """Bytes of all weights as they lie on disk (16 bits a number for Qwen's checkpoints)."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def choose_dtype(wanted: str, device: str) -> torch.dtype:
    """`auto` is bfloat16 on a GPU that has it, else float32."""
    import torch

    if wanted == "auto":
        has_bfloat16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float32
    if wanted == "float16":
        log.warning("model.dtype is float16: Qwen2-VL overflows in it on some inputs; bfloat16 or float32 do not")
    dtype = getattr(torch, wanted)
    assert isinstance(dtype, torch.dtype)
    return dtype


# --- model -----------------------------------------------------------------------------------------------------------


def load(settings: ModelSettings, folder: Path, plan: Plan, rank: int = 0) -> LoadedModel:
    """Load the weights onto GPU number `rank`, or over all GPUs, or into the CPU's memory.

    Raises:
        CannotLoad: the files are broken, or no vision-language model that is served here.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText

    where: dict[str, Any] = {}
    if plan.device == "cuda":
        where["device_map"] = "auto" if plan.shard else {"": rank}
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            folder,
            dtype=choose_dtype(settings.dtype, plan.device),
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            **where,
        )
        return LoadedModel(model.eval(), _load_tokenizer(folder), read_picture_spec(folder, model.config))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if type(error).__name__ in {"OutOfMemoryError", "AcceleratorError"}:
            raise
        # The library's message helps the operator; it goes to the log, not over the wire.
        raise CannotLoad(f"model.name: {settings.name} can't be loaded: {error}") from error


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = _read_chat_template(folder)
    return tokenizer


def _read_chat_template(folder: Path) -> str:
    """Some checkpoints keep the template with the processor instead of the tokenizer."""
    for file in (folder / "chat_template.jinja", folder / "chat_template.json"):
        if file.exists():
            text = file.read_text(encoding="utf-8")
            return text if file.suffix == ".jinja" else str(json.loads(text)["chat_template"])
    raise CannotLoad("the checkpoint has no chat template: take an -Instruct model")


def read_picture_spec(folder: Path, config: Any) -> PictureSpec:
    """Patches from the model's configuration, colours from its processor's."""
    vision = config.vision_config
    colours = _read_processor(folder)
    return PictureSpec(
        patch=vision.patch_size,
        merge=vision.spatial_merge_size,
        temporal=vision.temporal_patch_size,
        mean=tuple(colours["image_mean"]),
        std=tuple(colours["image_std"]),
    )


def _read_processor(folder: Path) -> dict[str, Any]:
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).exists():
            values: dict[str, Any] = json.loads((folder / name).read_text(encoding="utf-8"))
            values = values.get("image_processor", values)
            if "image_mean" in values:
                return values
    raise CannotLoad("the checkpoint has no preprocessor_config.json with image_mean and image_std")


def main() -> int:
    """`python model_loader.py`: fetch the model that the configuration names."""
    try:
        folder = download(load_settings().model.name)
    except QwenShotsError as error:
        print(f"ERROR: {error.detail}", file=sys.stderr)
        return 1
    print(f"model files: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
