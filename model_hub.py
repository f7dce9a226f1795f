"""Fetch a model from the Hugging Face hub: with a progress bar, and without the files that are there already.

huggingface_hub does it, with its locks, its progress and its retries. What it does not say is said here: whether there
is room, and what to do when a download fails.
"""

from __future__ import annotations

import contextlib
import errno
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from model_files import WANTED_FILES, by_hand, find_files, local_folder
from qwen_shots.errors import CannotLoad, NotServed
from served_models import check_served

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.hf_api import BlobLfsInfo

GB = 1e9

# How a model wants its pictures; 1 kB.
PROCESSOR = "preprocessor_config.json"


class DiskFull(OSError):
    """There is no room for the files."""


def download(name: str) -> Path:
    """Fetch the model, or do nothing where it is there and whole.

    Raises:
        NotServed: it is of a family or a format that is not served.
        CannotLoad: it can't be fetched; the message names the model, the source, the reason and the way by hand.
    """
    if local_folder(name):
        return find_files(name)
    try:
        return find_files(name)
    except NotServed:
        raise
    except CannotLoad:
        pass  # what is missing is fetched
    from huggingface_hub import constants

    try:
        _fetch(name)
    except NotServed:
        raise
    except Exception as error:  # the hub's library lets its transport's errors through, whatever that is today
        raise CannotLoad(
            f"the model {name} could not be fetched from {constants.ENDPOINT}: {_reason(name, error)} "
            f"Files that are whole are kept: ./setup.sh fetches the others. {by_hand(name)}"
        ) from error
    return find_files(name)


def download_processor(name: str) -> Path:
    """Fetch the file of a hub model that tells how it wants its pictures, or do nothing where it is there.

    Returns:
        The folder with that file.

    Raises:
        CannotLoad: it can't be fetched.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        with contextlib.suppress(LocalEntryNotFoundError):
            return Path(hf_hub_download(name, PROCESSOR, local_files_only=True)).parent
        return Path(hf_hub_download(name, PROCESSOR)).parent
    except Exception as error:  # as in `download`
        raise CannotLoad(
            f"the file {PROCESSOR} of the model {name} could not be fetched from {constants.ENDPOINT}: "
            f"{_reason(name, error)} Or copy it into a folder ./{name.rpartition('/')[2]} here, serve the model under "
            f"that name (vllm serve ... --served-model-name ./{name.rpartition('/')[2]}) and set model.name to it"
        ) from error


def _fetch(name: str) -> None:
    from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
    from huggingface_hub.file_download import repo_folder_name

    model = HfApi().model_info(name, files_metadata=True)
    weights = [file.lfs for file in model.siblings or () if file.lfs and file.rfilename.endswith(".safetensors")]
    blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model") / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    _check_room(blobs, weights)
    # Before gigabytes of weights that could not be used.
    check_served(name, Path(hf_hub_download(name, "config.json", revision=model.sha)).parent)
    snapshot_download(name, allow_patterns=WANTED_FILES)


def _check_room(blobs: Path, files: list[BlobLfsInfo]) -> None:
    """See that the files that are not whole yet have room; one that was cut off is removed, to be fetched again."""
    needed = 0
    for file in files:
        blob = blobs / file.sha256
        if not blob.exists() or blob.stat().st_size != file.size:
            blob.unlink(missing_ok=True)
            needed += file.size
    free = shutil.disk_usage(blobs).free
    if needed > free:
        raise DiskFull(errno.ENOSPC, f"it needs {needed / GB:.1f} GB more, and {free / GB:.1f} GB are free")


def _reason(name: str, error: Exception) -> str:
    """Why, in words that say what to do."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    match error:
        case CannotLoad(detail=detail):
            return detail
        case HfHubHTTPError():
            return _refusal(name, error)
        case OSError(errno=errno.ENOSPC):
            about = f": {error.strerror}" if isinstance(error, DiskFull) else ""
            return f"the disk is full{about}. Make room, or set HF_HOME to a folder on a larger disk."
        case OSError(errno=errno.EACCES | errno.EPERM | errno.EROFS):
            return f"{error.filename} can't be written. Set HF_HOME to a folder of your own."
        case ValueError():
            return "that is no name of a model. It should look like Qwen/Qwen2-VL-2B-Instruct."
        case _:
            offline = isinstance(error, OfflineModeIsEnabled)
            remedy = "Unset HF_HUB_OFFLINE." if offline else "Is there internet, and a proxy where one is needed?"
            return f"no connection ({type(error).__name__}). {remedy}"


def _refusal(name: str, error: HfHubHTTPError) -> str:
    """What the hub's answer means."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    log_in = "log in with .venv/bin/hf auth login"
    if isinstance(error, GatedRepoError):
        return f"it is gated. Accept its terms on {constants.ENDPOINT}/{name}, then {log_in}."
    if isinstance(error, RepositoryNotFoundError):
        return f"there is no such model, or it is private. Check model.name, or {log_in}."
    return f"the hub answered {error.response.status_code}. Try again later."
