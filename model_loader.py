"""From settings to a loaded model: which files, which numbers, which device, one copy or many.

Weights come from safetensors only and never with code of the checkpoint's own. torch and transformers are imported
when they are used, so that the server's own process can ask for a download without them.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from model_files import find_files, hash_weights, local_folder, read_ahead, weight_bytes
from model_hub import download, download_processor
from processes import usable_cores
from qwen_shots.errors import CannotLoad, NotServed, QwenShotsError
from qwen_shots.media import PictureFit
from served_models import read_json
from settings import ModelSettings, load_settings

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

# On the CPU, threads that wait for each other sleep. They would spin, and where other work wants the cores (the
# server's own decoding, say) that costs many times the work itself (benchmarks/LOG.md). Read when torch is loaded,
# by the engines' processes too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Those of `model_files` too, so that an engine needs this module alone.
__all__ = [
    "LoadedModel",
    "PictureSpec",
    "Plan",
    "find_files",
    "find_picture_spec",
    "hash_weights",
    "load",
    "load_failures",
    "make_plan",
    "read_ahead",
]

# Beside the weights: activations, the cache of a full batch and the allocator's slack.
ROOM_FOR_WORK = 1.3
GIB = 1024**3
BYTES_FOR_WORK = 4 * GIB

# What a checkpoint's files may say of its pictures, under the names that they have there.
Mean = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Deviation = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0)]


@contextlib.contextmanager
def load_failures(name: str) -> Iterator[None]:
    """Turn whatever fails inside into one sentence that names the model: a checkpoint's files may hold anything.

    Raises:
        CannotLoad: something failed. The library's first line is in it; the traceback is logged for debugging.
    """
    try:
        yield
    except NotServed:
        raise
    except CannotLoad as error:
        if name in error.detail:
            raise
        raise CannotLoad(f"model.name: {name} can't be loaded: {error.detail}") from error
    except Exception as error:
        log.debug("loading the model failed", exc_info=True)
        if type(error).__name__ == "OutOfMemoryError":
            raise CannotLoad(
                f"there is not enough GPU memory for {name}. End what else uses the GPU, set model.placement to shard "
                f"where there are several, or model.name to a smaller model. ({first_line(error)})"
            ) from error
        raise CannotLoad(f"model.name: {name} can't be loaded: {type(error).__name__}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """The first line of an error's message: libraries write whole paragraphs."""
    return next(iter(str(error).strip().splitlines()), "no reason given").rstrip(":")


@dataclass(frozen=True, slots=True)
class PictureSpec:
    """How a family of models wants its pictures.

    Attributes:
        patch: side of a patch in pixels.
        merge: patches a side that make one token.
        temporal: how often a still picture is repeated in time.
        mean: per channel, subtracted after scaling to 0..1.
        std: per channel, divided by after that.
        max_pixels: the largest picture that the checkpoint was made for; None where it doesn't say.
    """

    patch: Annotated[int, Field(alias="patch_size", strict=True, ge=1, le=1024)]
    merge: Annotated[int, Field(alias="merge_size", strict=True, ge=1, le=64)]
    temporal: Annotated[int, Field(alias="temporal_patch_size", strict=True, ge=1, le=64)]
    mean: Annotated[tuple[Mean, Mean, Mean], Field(alias="image_mean")]
    std: Annotated[tuple[Deviation, Deviation, Deviation], Field(alias="image_std")]
    max_pixels: Annotated[int | None, Field(strict=True)] = None

    @property
    def factor(self) -> int:
        """Side of one token in pixels: 28 for Qwen2-VL."""
        return self.patch * self.merge

    def max_tokens(self, asked: int) -> int:
        """Tokens that a picture may cost: as many as the settings ask for, but no more than the checkpoint knows."""
        return asked if self.max_pixels is None else min(asked, self.max_pixels // self.factor**2)

    def fit(self, asked: int) -> PictureFit:
        """How large the model sees pictures that may cost `max_tokens(asked)`."""
        return PictureFit(self.factor, self.max_tokens(asked))


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

    @property
    def dtype(self) -> torch.dtype:
        """In which type its layers calculate. `model.dtype` is that of its first weights, see `embed_exactly`."""
        dtype: torch.dtype = self.model.get_input_embeddings().weight.dtype
        return dtype


@dataclass(frozen=True, slots=True)
class Plan:
    """Where the model goes: `replicas` engine processes on `device`, each with a whole copy unless `shard`.

    Attributes:
        device: "cuda" or "cpu".
        replicas: engine processes.
        shard: one copy lies over all GPUs.
        gpu_memory: bytes of each GPU in use.
    """

    device: str
    replicas: int
    shard: bool
    gpu_memory: tuple[int, ...] = ()

    @property
    def gpu_count(self) -> int:
        """GPUs in use."""
        return len(self.gpu_memory)

    @property
    def gpu_memory_bytes(self) -> int | None:
        """Memory of all GPUs together; None on the CPU."""
        return sum(self.gpu_memory) or None


# --- device ----------------------------------------------------------------------------------------------------------


def gpu_memory() -> list[int]:
    """Bytes of each GPU that is seen."""
    import torch

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_properties(index).total_memory for index in range(torch.cuda.device_count())]


def make_plan(settings: ModelSettings, folder: Path, gpus: Sequence[int] | None = None) -> Plan:
    """Decide the device and the placement.

    Args:
        settings: the section `model`.
        folder: a whole checkpoint.
        gpus: bytes of each GPU; None looks at this machine's.

    Raises:
        CannotLoad: `placement: replicate` is asked for and the model does not fit on one GPU.
    """
    memory = tuple(gpu_memory() if gpus is None else gpus) if settings.device == "cuda" else ()
    if not memory:
        if settings.device == "cuda":
            log.warning("model.device is cuda, but no GPU is seen: falling back to the CPU, which is far slower")
        return Plan("cpu", replicas=1, shard=False)
    weights = weight_bytes(folder, choose_dtype(settings.dtype, "cuda").itemsize)
    needed = weights * ROOM_FOR_WORK + BYTES_FOR_WORK
    fits = needed <= min(memory)
    if settings.placement == "replicate" and not fits:
        raise CannotLoad(
            f"model.placement is replicate, but {settings.name} needs about {needed / GIB:.0f} GiB on each GPU, and "
            f"the smallest has {min(memory) / GIB:.0f}. Set model.placement to shard, or model.name to a smaller model"
        )
    shard = len(memory) > 1 and (settings.placement == "shard" or not fits)
    return Plan("cuda", replicas=1 if shard else len(memory), shard=shard, gpu_memory=memory)


def choose_dtype(wanted: str, device: str) -> torch.dtype:
    """`auto` is bfloat16 on a GPU that has it, else float32."""
    import torch

    if wanted == "auto":
        has_bfloat16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float32
    dtype = getattr(torch, wanted)
    assert isinstance(dtype, torch.dtype)
    return dtype


# --- model -----------------------------------------------------------------------------------------------------------


def load(settings: ModelSettings, folder: Path, plan: Plan, rank: int = 0) -> LoadedModel:
    """Load the weights onto GPU number `rank`, or over all GPUs, or into the CPU's memory.

    Raises:
        CannotLoad: the files are broken, or no vision-language model that is served here.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    # torch counts the machine's cores, and more threads than may run at a time wait for each other.
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))
    where: dict[str, Any] = {}
    if plan.device == "cuda":
        where["device_map"] = "auto" if plan.shard else {"": rank}
        if not plan.shard:
            # Kernels and graphs of our own go to the current device, wherever their tensors are.
            torch.cuda.set_device(rank)
    if settings.dtype == "float16" and rank == 0:
        log.warning("model.dtype is float16: Qwen2-VL overflows in it on some inputs; bfloat16 or float32 do not")
    # It lists weights that do not fit on many lines; `_check_weights` says it in one.
    logging.getLogger("transformers.modeling_utils").setLevel(logging.ERROR)
    with load_failures(settings.name):
        model, report = AutoModelForImageTextToText.from_pretrained(
            folder,
            output_loading_info=True,
            dtype=choose_dtype(settings.dtype, plan.device),
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # it would end in advice; the report says which they are
            **where,
        )
        _check_weights(settings.name, report)
        spec = read_picture_spec(folder, model.config)
        embed_exactly(model)
        return LoadedModel(model.eval(), _load_tokenizer(folder), spec)


def embed_exactly(model: Any) -> None:
    """Let the vision tower's first step, from pixels to patches, calculate in float32.

    In bfloat16 a normalised pixel is off by up to a quarter of a grey level, and all pixels of an even area by the
    same. That is much of what there is to see in fog or at night: it moved the motion of a shot with 20 grey levels by
    0.045, where all other rounding together moves it by 0.003. The weights stay what they are, and the step is less
    than a thousandth of the model's work.
    """
    embed = model.model.visual.patch_embed
    rounded = embed.proj.weight.dtype
    embed.float()
    embed.register_forward_hook(lambda _module, _pixels, patches: patches.to(rounded))


def _check_weights(name: str, report: dict[str, Any]) -> None:
    """What a checkpoint lacks, or has in another shape, transformers fills with random numbers and only warns."""
    if other := sorted(key for key, *_ in report["mismatched_keys"]):
        raise CannotLoad(
            f"model.name: {name} can't be loaded: {len(other)} of its weights have another shape than its config.json "
            f"says, the first is {other[0]}"
        )
    if lacking := sorted(report["missing_keys"]):
        raise CannotLoad(
            f"model.name: {name} can't be loaded: {len(lacking)} of its weights are missing, the first is {lacking[0]}"
        )


def _load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library's own has no type
        raise CannotLoad(f"the checkpoint's tokenizer can't be read: {first_line(error)}") from error
    if tokenizer.chat_template is None:
        tokenizer.chat_template = _read_chat_template(folder)
    return tokenizer


def _read_chat_template(folder: Path) -> str:
    """Some checkpoints keep the template with the processor instead of the tokenizer."""
    for file in (folder / "chat_template.jinja", folder / "chat_template.json"):
        if file.exists():
            return file.read_text(encoding="utf-8") if file.suffix == ".jinja" else read_json(file)["chat_template"]
    raise CannotLoad("the checkpoint has no chat template: take an -Instruct model")


def read_picture_spec(folder: Path, config: Any) -> PictureSpec:
    """Patches from the model's configuration, colours from its processor's."""
    vision = config.vision_config
    return _picture_spec(
        _read_processor(folder)
        | {
            "patch_size": vision.patch_size,
            "merge_size": vision.spatial_merge_size,
            "temporal_patch_size": vision.temporal_patch_size,
        }
    )


def find_picture_spec(name: str) -> PictureSpec:
    """How a model wants its pictures, from its one file that says so; the weights need not be on this disk.

    Raises:
        CannotLoad: the file is not on this disk and can't be fetched, or does not say it.
    """
    with load_failures(name):
        return _picture_spec(_read_processor(local_folder(name) or download_processor(name)))


def _picture_spec(values: dict[str, Any]) -> PictureSpec:
    size = values.get("size") or {}
    if not isinstance(size, dict):
        raise CannotLoad("the checkpoint's picture format is wrong: size must be an object")
    if values.get("max_pixels") is None:
        values = values | {"max_pixels": size.get("longest_edge")}
    try:
        spec = TypeAdapter(PictureSpec).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise CannotLoad(f"the checkpoint's picture format is wrong: {field}: {first['msg'].lower()}") from None
    if spec.max_pixels is not None and spec.max_pixels < spec.factor**2:
        raise CannotLoad(
            f"the checkpoint's picture format is wrong: max_pixels must be {spec.factor**2} or more, one token"
        )
    return spec


def _read_processor(folder: Path) -> dict[str, Any]:
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).exists():
            values = read_json(folder / name)
            nested = values.get("image_processor")
            values = nested if isinstance(nested, dict) else values
            if {"image_mean", "image_std"} <= values.keys():
                return values
    raise CannotLoad("the checkpoint has no preprocessor_config.json with image_mean and image_std")


def main(arguments: Sequence[str]) -> int:
    """`python model_loader.py`: fetch the model that the configuration names, where it is not there yet."""
    parser = argparse.ArgumentParser(prog="model_loader.py", description=main.__doc__)
    parser.add_argument(
        "--where", action="store_true", help="print the folder with the model's files, and fetch nothing"
    )
    asked = parser.parse_args(arguments)
    try:
        settings = load_settings().model
        name = settings.name
        if settings.engine == "remote":
            # The endpoints have the weights.
            folder = local_folder(name) or download_processor(name)
        else:
            folder = find_files(name) if asked.where else download(name)
    except QwenShotsError as error:
        print(f"ERROR: {error.detail}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ERROR: stopped. What was fetched is kept; run it again to go on", file=sys.stderr)
        return 130
    print(folder if asked.where else f"model: {name}, in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
