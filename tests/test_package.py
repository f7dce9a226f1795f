"""`pip install .` gives the client alone, without the server and torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

from tests.helpers import ROOT

EXTRAS = ("timelines", "parquet", "transnet")
PARTS = (
    "pyproject.toml",
    "README.md",
    "requirements-client.txt",
    *(f"requirements-{extra}.txt" for extra in EXTRAS),
    "qwen_shots",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, for a build leaves folders behind."""
    source = tmp_path_factory.mktemp("source")
    for name in PARTS:
        part = ROOT / name
        shutil.copytree(part, source / name) if part.is_dir() else shutil.copy(part, source)
    command = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(source / "dist"), str(source)]
    subprocess.run([sys.executable, *command], check=True)
    (built,) = (source / "dist").glob("*.whl")
    return built


def test_it_holds_the_client_and_nothing_of_the_server(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {"qwen_shots/client/api.py", "qwen_shots/client/shots.py", "qwen_shots/py.typed"} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"qwen_shots"}
    (scripts,) = (name for name in names if name.endswith("/entry_points.txt"))
    assert "qwen-shots = qwen_shots.client.cli.main:main" in zipfile.ZipFile(wheel).read(scripts).decode()


def requirements(file: str) -> set[str]:
    lines = (ROOT / file).read_text().splitlines()
    return {line.split("#")[0].strip() for line in lines} - {""}


def test_it_asks_for_what_make_installs_for_the_client_and_for_no_torch(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    asked = message_from_string(archive.read(name).decode()).get_all("Requires-Dist") or []
    needed = {each for each in asked if "extra ==" not in each}
    assert needed == requirements("requirements-client.txt")
    assert not any(each.startswith(("torch", "transformers", "fastapi", "opentimelineio")) for each in needed)
    for extra in EXTRAS:
        marker = f'; extra == "{extra}"'
        extras = {each.removesuffix(marker) for each in asked if each.endswith(marker)}
        assert extras == requirements(f"requirements-{extra}.txt")


def test_every_module_and_page_is_in_it(wheel: Path) -> None:
    files = (file for file in (ROOT / "qwen_shots").rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    assert {str(file.relative_to(ROOT)) for file in files} <= set(zipfile.ZipFile(wheel).namelist())


def test_it_works_where_there_is_no_torch(wheel: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "for name in 'torch transformers fastapi uvicorn yaml opentimelineio'.split(): sys.modules[name] = None\n"
        "import importlib, pkgutil, qwen_shots\n"
        "for each in pkgutil.walk_packages(qwen_shots.__path__, 'qwen_shots.'): importlib.import_module(each.name)\n"
        "from qwen_shots.client import api\n"
        "assert api.__file__.startswith(sys.argv[1])\n"
        "api.ShotClient('http://localhost:8000', 'some-key').close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(wheel)], capture_output=True, text=True, check=False, cwd=wheel.parent
    )
    assert done.returncode == 0, done.stderr
