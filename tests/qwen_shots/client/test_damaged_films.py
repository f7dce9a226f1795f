"""Films damaged at random places: no crash, no hang, an exit code that is documented.

Many films run in one process, for its start costs more than they do. A crash or a hang ends it, and the output says
where.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import KEY, ROOT
from tests.qwen_shots.client.answering import AnsweringServer
from tests.qwen_shots.client.clips import RATE, scenes, tone, write_film

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", 12, "-pix_fmt", "yuv420p")
MPEG2 = ("-c:v", "mpeg2video", "-q:v", 4, "-g", 12)

CONTAINERS: dict[str, tuple[object, ...]] = {
    "a.mp4": (*X264, "-c:a", "aac", "-movflags", "faststart"),
    "fragments.mp4": (*X264, "-c:a", "aac", "-movflags", "+frag_keyframe+empty_moov"),
    "a.mov": (*X264, "-c:a", "pcm_s16le"),
    "a.mkv": (*X264, "-c:a", "flac"),
    "a.webm": ("-c:v", "libvpx", "-b:v", "500k", "-c:a", "libopus"),
    "a.avi": ("-c:v", "mpeg4", "-bf", 2, "-c:a", "mp3"),
    "a.ts": (*X264, "-c:a", "mp2"),
    "a.m2ts": (*MPEG2, "-c:a", "ac3"),
    "a.mpg": (*MPEG2, "-c:a", "mp2", "-f", "vob"),
    "a.flv": ("-c:v", "flv", "-c:a", "mp3", "-ar", 44_100),
    "a.wmv": ("-c:v", "wmv2", "-c:a", "wmav2"),
    "a.mxf": (*MPEG2, "-c:a", "pcm_s16le", "-ar", 48_000),
}

DOCUMENTED = {0, 1, 3}  # done, some shots failed, the film can't be used
SECONDS_A_FILM = 60

# Runs the command on each film, and prints its exit code.
RUN = f"""
import faulthandler, sys
from pathlib import Path
from qwen_shots.client.cli.main import main
server, *films = sys.argv[1:]
for film in films:
    print(film, end=" ", flush=True)
    faulthandler.dump_traceback_later({SECONDS_A_FILM}, exit=True)
    print(main(["analyze", film, "--out", film + ".answers", "--server", server, "--key", {KEY!r}]), flush=True)
"""


def noise(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.randint(1, 8)):
        at, size = rng.randrange(len(data)), rng.randint(1, 2000)
        data[at : at + size] = rng.randbytes(len(data[at : at + size]))


def zeros(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data))
    data[at : at + 4096] = bytes(len(data[at : at + 4096]))


def flipped_bits(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.randint(1, 200)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def header(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.randint(1, 10)):
        data[rng.randrange(min(4000, len(data)))] = rng.randrange(256)


def lost_piece(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randint(1, 20_000)]


def doubled_piece(rng: random.Random, data: bytearray) -> None:
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.randint(1, 20_000)]


def cut_off(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(1, len(data)) :]


DAMAGES: tuple[Callable[[random.Random, bytearray], None], ...] = (
    noise,
    zeros,
    flipped_bits,
    header,
    lost_piece,
    doubled_piece,
    cut_off,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The same two shots in each container."""
    folder = tmp_path_factory.mktemp("whole")
    source = write_film(folder / "source.mkv", scenes(RATE, RATE), sound=tone(440, 2.0))
    for name, arguments in CONTAINERS.items():
        command = ["ffmpeg", "-v", "error", "-y", "-i", source, *arguments, folder / name]
        subprocess.run([str(part) for part in command], check=True, stdin=subprocess.DEVNULL)
    return {name: (folder / name).read_bytes() for name in CONTAINERS}


@pytest.mark.parametrize(
    "count", [len(CONTAINERS), pytest.param(200, marks=[pytest.mark.acceptance, pytest.mark.timeout(3600)])]
)
def test_damaged_at_random_places(tmp_path: Path, whole: dict[str, bytes], server: AnsweringServer, count: int) -> None:
    films = []
    for seed in range(count):
        name = list(CONTAINERS)[seed % len(CONTAINERS)]
        rng, data = random.Random(seed), bytearray(whole[name])
        rng.choice(DAMAGES)(rng, data)
        films.append(tmp_path / f"{seed}-{name}")
        films[-1].write_bytes(data)
    command = [sys.executable, "-X", "faulthandler", "-c", RUN, server.url, *map(str, films)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    codes = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert done.returncode == 0, f"{done.stdout[-300:]}\n{done.stderr[-3000:]}"
    assert {film: code for film, code in codes.items() if int(code) not in DOCUMENTED} == {}
    assert len(codes) == count
    assert "Traceback" not in done.stderr


def test_the_whole_films_are_analysed(tmp_path: Path, whole: dict[str, bytes], server: AnsweringServer) -> None:
    """Otherwise the damaged ones would prove nothing."""
    for name, data in whole.items():
        (tmp_path / name).write_bytes(data)
    command = [sys.executable, "-c", RUN, server.url, *(str(tmp_path / name) for name in whole)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert [line.rsplit(" ", 1)[1] for line in done.stdout.splitlines()] == ["0"] * len(whole), done.stderr
