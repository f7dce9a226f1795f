"""A model's files on this disk: where they lie, whether they are whole, and how much memory they will take."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

from pydantic import StringConstraints, TypeAdapter, ValidationError

from qwen_shots.errors import CannotLoad
from served_models import check_number_type, check_served, read_json

HERE = Path(__file__).parent

# What a checkpoint needs. Pickled weights and Python files are never asked for.
WANTED_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "merges.txt", "vocab.json"]

INDEX = "model.safetensors.index.json"
WEIGHT_MAP = TypeAdapter(
    dict[str, Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_ .+-]{1,200}\.safetensors$")]]
)
READ_BYTES = 2**20
HASHED_AT_ONCE = 4
HASH_NAME = re.compile("[0-9a-f]{64}")
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")

# Each line: what the files are for, and the sets of files of which one must be there.
NEEDED: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = (
    ("configuration", (("config.json",),)),
    ("tokenizer", (("tokenizer.json",), ("vocab.json", "merges.txt"))),
    ("picture format", (("preprocessor_config.json",), ("processor_config.json",))),
)


def local_folder(name: str) -> Path | None:
    """The folder that `model.name` means, relative to here or to this project; None for a hub name.

    Raises:
        CannotLoad: the name can only be a path, and there is no such folder.
    """
    with contextlib.suppress(OSError, RuntimeError, ValueError):  # no such user, a name that no folder can have
        for folder in (Path(name).expanduser(), HERE / name):
            if folder.is_dir():
                return folder
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise CannotLoad(f"model.name: there is no folder {name}")
    return None


def find_files(name: str) -> Path:
    """The folder with the model's files, from this disk alone.

    Raises:
        CannotLoad: it is not there, or not whole; the message says how to get it.
    """
    if folder := local_folder(name):
        check_whole(name, folder, "Copy the whole folder again, or set model.name to another")
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=WANTED_FILES, local_files_only=True))
    except (LocalEntryNotFoundError, ValueError):
        raise CannotLoad(f"the model {name} is not on this disk. {how_to_fetch(name)}") from None
    check_whole(name, folder, how_to_fetch(name))
    return folder


def how_to_fetch(name: str) -> str:
    """The way to a hub model, with and without internet on this machine."""
    return f"Run ./setup.sh to fetch it (it keeps what is whole). {by_hand(name)}"


def by_hand(name: str) -> str:
    """The ways that need no internet on this machine."""
    return (
        f"By hand, on a machine with internet: hf download {name} --local-dir qwen-model, then copy that folder here "
        "and set model.name to it. To try the server without a download: ./start_server.sh --demo"
    )


def check_whole(name: str, folder: Path, remedy: str) -> None:
    """See that a checkpoint is one that is served, has all its parts, and that no file was cut off. Reads no weights.

    Raises:
        NotServed: it is of another family or format.
        CannotLoad: something is missing or broken; the message ends with the remedy.
    """
    files = weight_files(folder)
    if broken := _broken_json(folder):
        raise CannotLoad(f"the model {name} is not whole: {broken} is cut off or broken. {remedy}")
    if (folder / "config.json").exists():
        check_served(name, folder)
    if not files:
        raise CannotLoad(f"model.name: the folder {name} {_why_no_weights(folder)}")
    if missing := [file.name for file in files if not file.exists()]:
        raise CannotLoad(
            f"the model {name} is not whole: {len(missing)} of {len(files)} weight files are missing "
            f"({', '.join(missing[:3])}). {remedy}"
        )
    for what, choices in NEEDED:
        if not any(all((folder / file).exists() for file in choice) for choice in choices):
            wanted = " or ".join(" and ".join(choice) for choice in choices)
            raise CannotLoad(f"the model {name} is not whole: its {what} is missing ({wanted}). {remedy}")
    for file in files:
        if not _is_whole(file):
            raise CannotLoad(f"the model {name} is not whole: {file.name} is cut off or broken. {remedy}")
        for key, kind in _number_types(file):
            check_number_type(name, key, kind)


def weight_files(folder: Path) -> list[Path]:
    """List the weight files that a checkpoint should have, there or not; an index names every one of them.

    Raises:
        CannotLoad: the index is broken, or names a file outside of the folder.
    """
    if not (folder / INDEX).exists():
        return sorted(folder.glob("*.safetensors"))
    try:
        names = WEIGHT_MAP.validate_python(read_json(folder / INDEX).get("weight_map")).values()
    except ValidationError:
        raise CannotLoad(
            f"the file {folder / INDEX} is broken: weight_map must give each weight the name of a *.safetensors file "
            "in the same folder"
        ) from None
    return [folder / name for name in sorted(set(names))]


def read_ahead(folder: Path) -> threading.Thread:
    """Have the weights come from the disk while Python imports torch, instead of after it: a cold start is the sooner.

    Returns:
        The thread that waits for the disk. It ends by itself, whatever it meets: loading tells what is wrong.
    """

    def read() -> None:
        buffer = bytearray(READ_BYTES)
        with contextlib.suppress(OSError, CannotLoad):
            for file in weight_files(folder):
                with file.open("rb", buffering=0) as source:
                    while source.readinto(buffer):
                        pass

    thread = threading.Thread(target=read, name="read-ahead", daemon=True)
    thread.start()
    return thread


def hash_weights(folder: Path) -> str:
    """Hash the weight files (SHA-256). The result is the same on every machine.

    A file in the hub's cache is named by its hash, so it need not be read. Others are read at some 2 GB a second and
    thread where the processor has instructions for SHA-256.

    Args:
        folder: a whole checkpoint.
    """
    with ThreadPoolExecutor(HASHED_AT_ONCE) as threads:
        hashes = list(threads.map(_hash_file, weight_files(folder)))
    return hashlib.sha256(" ".join(hashes).encode()).hexdigest()


def _hash_file(file: Path) -> str:
    if HASH_NAME.fullmatch(name := file.resolve().name):
        return name
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while part := opened.read(READ_BYTES):
            digest.update(part)
    return digest.hexdigest()


def _why_no_weights(folder: Path) -> str:
    if any(file for pattern in PICKLED for file in folder.glob(pattern)):
        return (
            "holds pickled weights only. Such files can hold code that runs when they are read, so they are not "
            "loaded: take a model with *.safetensors files"
        )
    return "holds no *.safetensors file"


def _broken_json(folder: Path) -> str | None:
    """The name of the first file that ends in .json and does not hold an object."""
    return next((file.name for file in sorted(folder.glob("*.json")) if not _is_json(file)), None)


def _is_json(file: Path) -> bool:
    try:
        read_json(file)
    except CannotLoad:
        return False
    return True


def _is_whole(file: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    try:
        # It reads the header and compares what that promises with the file's length.
        with safe_open(file, framework="np"):
            return True
    except (SafetensorError, OSError):
        return False


def _number_types(file: Path) -> Iterator[tuple[str, str]]:
    from safetensors import safe_open

    with safe_open(file, framework="np") as tensors:
        for key in tensors.keys():  # noqa: SIM118 - not a dict
            yield key, tensors.get_slice(key).get_dtype()


def weight_bytes(folder: Path, float_bytes: int) -> int:
    """Memory that the weights take.

    Args:
        folder: a whole checkpoint.
        float_bytes: bytes of a number in the dtype that it is loaded in. Integers (quantised weights) keep their size.
    """
    from safetensors import safe_open

    total = 0
    for file in weight_files(folder):
        with safe_open(file, framework="np") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - not a dict
                total += _tensor_bytes(tensors.get_slice(key), float_bytes)
    return total


def _tensor_bytes(tensor: Any, float_bytes: int) -> int:
    """Bytes of one tensor; safetensors calls its types F32, BF16, I8, U8, BOOL and so on."""
    numbers = 1
    for length in tensor.get_shape():
        numbers *= length
    kind: str = tensor.get_dtype()
    if kind.startswith(("F", "BF")):
        return numbers * float_bytes
    return numbers * int("".join(filter(str.isdigit, kind)) or 8) // 8
