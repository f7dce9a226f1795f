"""`qwen-shots analyze` and `server` as a user runs them: what they say, and their exit codes."""

from __future__ import annotations

import ctypes
import io
import itertools
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from qwen_shots.client.cli.analyze import Patience
from qwen_shots.client.cli.main import main
from qwen_shots.client.cli.pace import Pace, clock
from qwen_shots.client.describe import describe
from qwen_shots.client.errors import NoStore
from qwen_shots.client.store import FILE_NAME, ShotRecord, open_store
from tests.helpers import KEY, PATIENCE_SECONDS, ROOT, free_port
from tests.qwen_shots.client.answering import AnsweringServer
from tests.qwen_shots.client.clips import scenes, tone, write_film
from tests.qwen_shots.client.test_store import VERSION_1
from tests.scripts.processes import wait_for

COUNT = 9


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def analyze(server: AnsweringServer, *arguments: object) -> int:
    return main(["analyze", *map(str, arguments), "--server", server.url, "--key", KEY])


def stored(folder: Path) -> list[ShotRecord]:
    with open_store(folder) as store:
        assert store.complete
        return [replace(shot, answered_at=None) for shot in store.shots()]


def test_a_film(film: Path, server: AnsweringServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert analyze(server, film, "--out", tmp_path) == 0
    assert "9 of 9 shots analysed" in capsys.readouterr().err
    assert len(stored(tmp_path)) == COUNT


def test_several_films(film: Path, server: AnsweringServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One bad film costs no other; each has a folder of its own."""
    bad = tmp_path / "bad.mp4"
    bad.write_text("no film")
    other = write_film(tmp_path / "b.mp4", scenes(24, 24))
    assert analyze(server, bad, film, other, "--out", tmp_path / "out") == 3
    assert "bad.mp4 is not a film" in capsys.readouterr().err
    assert len(stored(tmp_path / "out/a")) == COUNT
    assert [shot.audio_class for shot in stored(tmp_path / "out/b")] == [None, None]
    assert analyze(server, film, tmp_path / "a.mkv", "--out", tmp_path / "out") == 2
    assert "two films are named a" in capsys.readouterr().err
    assert analyze(server, film, other, "--out", tmp_path / "out", "--shots", tmp_path / "list.csv") == 2


def test_failed_shots_are_listed_and_tried_again(
    film: Path, server: AnsweringServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.failing = {3, 4}
    assert analyze(server, film, "--out", tmp_path) == 1
    told = capsys.readouterr().err
    assert "7 of 9 shots analysed" in told
    assert "shot 3 failed: No number: NaN came out" in told
    assert "--retry-failed" in told
    server.failing, server.asked = {4}, type(server.asked)()
    assert analyze(server, film, "--out", tmp_path, "--retry-failed") == 1
    assert server.asked == {3: 1, 4: 1}
    server.failing = set()
    assert analyze(server, film, "--out", tmp_path, "--retry-failed") == 0


def test_what_a_server_says_reaches_no_terminals_controls(
    film: Path, server: AnsweringServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.failing, server.reason = {1}, "red \x1b[31m, title \x1b]0;x\x07"
    assert analyze(server, film, "--out", tmp_path) == 1
    assert main(["server", "try", "--server", server.url, "--key", KEY]) == 5
    out, err = capsys.readouterr()
    assert "red [31m, title ]0;x" in " ".join(err.split())
    assert "red [31m, title ]0;x" in " ".join(out.split())
    assert "\x1b" not in out + err


def test_a_given_list_and_another_detector(film: Path, server: AnsweringServer, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("start,end,name\n1,2,here\n")
    assert analyze(server, film, "--out", tmp_path / "a", "--shots", tmp_path / "list.csv") == 0
    assert [(shot.name, shot.analysed) for shot in stored(tmp_path / "a")] == [("here", True)]
    assert analyze(server, film, "--out", tmp_path / "b", "--detector", "content") == 0
    with open_store(tmp_path / "b") as store:
        assert store.film.cut_by == "content"


def test_the_key_of_the_environment_and_the_evidence(
    film: Path, live_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real server; a wrong key loses nothing but time."""
    (tmp_path / "list.csv").write_text("start,end,name\n1,2,here\n")
    command = ["analyze", str(film), "--out", str(tmp_path), "--server", live_url, "--explain"]
    command += ["--shots", str(tmp_path / "list.csv")]
    monkeypatch.setenv("QWEN_SHOTS_KEY", "wrong")
    assert main(command) == 5
    assert "key" in capsys.readouterr().err
    monkeypatch.setenv("QWEN_SHOTS_KEY", KEY)
    assert main(command) == 0
    (shot,) = stored(tmp_path)
    assert shot.evidence is not None
    assert len(shot.scores) == 6
    assert main(["show", str(tmp_path), "1"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "1 (here) of a.mp4" in told
    assert f"luminance {shot.evidence.measured.luminance:.4f}" in told
    assert f"{shot.evidence.fusion['motion'].measurement:+.4f}" in told


# --- what can't work -------------------------------------------------------------------------------------------------


def cut_short(film: Path, path: Path) -> None:
    path.write_bytes(film.read_bytes()[: film.stat().st_size // 2])


BAD: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "text.mp4": (lambda _, path: path.write_text("words\n" * 100), "is not a film"),
    "sound.wav": (lambda _, path: write_film(path, [], sound=tone(440, 1)), "no moving picture"),
    "short.mp4": (cut_short, "its header says 10.5 s"),
    "nowhere.mp4": (lambda *_: None, "No such file"),
    "folder.mp4": (lambda _, path: path.mkdir(), "directory"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_films(
    film: Path, server: AnsweringServer, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make, words = BAD[name]
    make(film, tmp_path / name)
    assert analyze(server, tmp_path / name, "--out", tmp_path / "out") == 3
    told = capsys.readouterr().err
    assert words in " ".join(told.split())
    assert "Traceback" not in told
    assert bool(server.asked) == (name == "short.mp4")  # up to its last sure shot


def test_a_film_of_one_picture(server: AnsweringServer, tmp_path: Path) -> None:
    film = write_film(tmp_path / "one.mp4", scenes(1))
    assert analyze(server, film, "--out", tmp_path / "out") == 0
    (shot,) = stored(tmp_path / "out")
    assert (shot.first_frame, shot.end_frame, shot.analysed) == (0, 1, True)


@pytest.mark.parametrize("command", [["server", "ping"], ["server", "status"], ["server", "try"], ["analyze"]])
def test_no_server(film: Path, tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Two lines, at once, and how to start one."""
    url = f"http://somebody:secret@127.0.0.1:{free_port()}"
    what = [str(film), "--out", str(tmp_path / "out"), "--detector", "content"] if command == ["analyze"] else []
    began = time.monotonic()
    assert main([*command, *what, "--server", url, "--key", KEY]) == 5
    assert time.monotonic() - began < 10
    out, err = capsys.readouterr()
    assert "secret" not in out + err
    first, second = err.splitlines()
    assert first.startswith(f"ERROR: no server can be reached at {url.replace('somebody:secret@', '')}")
    assert "./start_server.sh" in second
    assert "QWEN_SHOTS_SERVER" in second


def test_a_folder_without_answers_is_no_hindrance(film: Path, server: AnsweringServer, tmp_path: Path) -> None:
    """Nobody has answered yet, so the next try may find the shots in another way."""
    command = ["analyze", str(film), "--out", str(tmp_path), "--server", f"http://127.0.0.1:{free_port()}"]
    (tmp_path / "list.csv").write_text("start,end,name\n1,2,here\n")
    assert main([*command, "--shots", str(tmp_path / "list.csv")]) == 5
    assert analyze(server, film, "--out", tmp_path, "--detector", "content") == 0
    assert len(stored(tmp_path)) == COUNT


def test_what_answers_is_another_server(
    film: Path, server: AnsweringServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told once, at once, and not as the reason why each shot of the film failed."""
    server.status = 404
    assert analyze(server, film, "--out", tmp_path) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert "is the address right?" in line
    with open_store(tmp_path) as store:
        assert not any(shot.attempts for shot in store.shots())


def test_a_finished_film_needs_no_server(film: Path, server: AnsweringServer, tmp_path: Path) -> None:
    assert analyze(server, film, "--out", tmp_path) == 0
    assert main(["analyze", str(film), "--out", str(tmp_path), "--server", f"http://127.0.0.1:{free_port()}"]) == 0


@pytest.mark.parametrize(("key", "words"), [("", "wants a key"), ("not-the-key", "does not take this key")])
def test_a_missing_or_wrong_key_is_told_in_the_words_of_the_command_line(
    live_url: str, key: str, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWEN_SHOTS_KEY", key)
    assert main(["server", "try", "--server", live_url]) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert "--key" in line
    assert "QWEN_SHOTS_KEY" in line
    assert "Bearer" not in line


# --- where answers go, and whose they are ----------------------------------------------------------------------------


def test_answers_go_to_a_folder_with_the_films_name(
    film: Path,
    server: AnsweringServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(film, tmp_path / "unnamed")
    other = write_film(tmp_path / "b.mp4", scenes(24, 24))
    (tmp_path / "list.csv").write_text("start,end,name\n1,2,here\n")
    assert analyze(server, film, other) == 0
    assert analyze(server, "unnamed", "--shots", "list.csv") == 0
    assert "in unnamed.shots" in capsys.readouterr().err
    assert {each.parent.name for each in tmp_path.glob("*/shots.sqlite")} == {"a", "b", "unnamed.shots"}


def test_another_model_is_refused_unless_all_is_asked_again(
    film: Path, server: AnsweringServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.model, server.dies_after = "one@1111", 2
    analyze(server, film, "--out", tmp_path)
    with open_store(tmp_path) as store:
        assert store.film.model == "one@1111"
        known = {shot.number for shot in store.shots() if shot.analysed}
    assert 0 < len(known) < COUNT
    server.model, server.dies_after, server.asked = "other@2222", float("inf"), type(server.asked)()
    assert analyze(server, film, "--out", tmp_path) == 4
    assert not server.asked
    first, second = capsys.readouterr().err.splitlines()[-2:]
    assert "one@1111" in first
    assert "other@2222" in first
    assert "--again" in second
    server.model = "moved/one@1111"  # the same under another name
    assert analyze(server, film, "--out", tmp_path) == 0
    assert set(server.asked) == set(range(1, COUNT + 1)) - known
    server.model, server.asked = "other@2222", type(server.asked)()
    assert analyze(server, film, "--out", tmp_path, "--again") == 0
    assert server.asked == dict.fromkeys(range(1, COUNT + 1), 1)
    with open_store(tmp_path) as store:
        assert store.film.model == "other@2222"
        assert {shot.attempts for shot in store.shots()} == {1}
    capsys.readouterr()
    assert main(["show", str(tmp_path), "1"]) == 0
    assert "other@2222" in capsys.readouterr().out


def test_a_model_that_says_its_name_with_its_answers_only(
    film: Path, server: AnsweringServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server that was still loading when the run began: nothing of another model is stored, and nothing is lost."""
    server.model, server.failing = "one@1111", {4}
    assert analyze(server, film, "--out", tmp_path) == 1
    before = stored(tmp_path)

    def another(_: list[int]) -> None:
        server.model = "other@2222"

    server.model, server.before = None, another
    assert analyze(server, film, "--out", tmp_path, "--retry-failed") == 4
    assert "--again" in capsys.readouterr().err
    assert stored(tmp_path) == before
    server.model = None
    assert analyze(server, film, "--out", tmp_path, "--again") == 1
    with open_store(tmp_path) as store:
        assert store.film.model == "other@2222"


def test_nothing_is_forgotten_before_there_is_a_new_answer(film: Path, server: AnsweringServer, tmp_path: Path) -> None:
    assert analyze(server, film, "--out", tmp_path) == 0
    before = stored(tmp_path)
    server.dies_after = 0
    url = f"http://127.0.0.1:{free_port()}"
    assert main(["analyze", str(film), "--out", str(tmp_path), "--server", url, "--again"]) == 5
    assert stored(tmp_path) == before


def test_a_folder_of_version_1_goes_on_with_its_cuts(film: Path, server: AnsweringServer, tmp_path: Path) -> None:
    """By the command that began it: no detector and no --again."""
    server.model = "one@1111"
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as made:
        made.execute("PRAGMA journal_mode = WAL")
        made.executescript(VERSION_1.replace("'f'", f"'{describe(film, 'adaptive').fingerprint}'"))
    with open_store(tmp_path) as store:
        before = [(shot.start, shot.end, shot.first_frame, shot.end_frame) for shot in store.shots()]
    assert analyze(server, film, "--out", tmp_path) == 1  # its second shot has failed before
    assert server.asked == {3: 1}
    assert analyze(server, film, "--out", tmp_path, "--retry-failed") == 0
    with open_store(tmp_path) as store:
        assert store.film.model is None
        assert store.film.path == film
        assert [(shot.start, shot.end, shot.first_frame, shot.end_frame) for shot in store.shots()] == before
        assert [shot.caption == "A face." for shot in store.shots()] == [True, False, False]
    assert analyze(server, film, "--out", tmp_path, "--again") == 0
    with open_store(tmp_path) as store:
        assert store.film.model == "one@1111"


def test_an_old_folder_goes_on_with_its_model_unknown(
    film: Path, server: AnsweringServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.failing = {3}
    assert analyze(server, film, "--out", tmp_path) == 1
    server.failing, server.model = set(), "one@1111"
    assert analyze(server, film, "--out", tmp_path, "--retry-failed") == 0
    with open_store(tmp_path) as store:
        assert store.film.model is None
    assert "a model that is not known" in caplog.text


@pytest.mark.parametrize(
    ("status", "words"), [(502, "no answer of the server"), (503, "status 503"), (504, "too slow")]
)
def test_a_proxy_with_no_server_behind_it(
    server: AnsweringServer, capsys: pytest.CaptureFixture[str], status: int, words: str
) -> None:
    """Asked once: somebody wants to know now."""
    server.status = status
    for command in ("ping", "status"):
        assert main(["server", command, "--server", server.url]) == 5
        assert words in " ".join(capsys.readouterr().err.split())


PATIENT = """
import sys
from qwen_shots.client import ahead, analysis
from qwen_shots.client.cli.main import main

ahead.CLOSE_SECONDS = analysis.GRACE_SECONDS = 60.0
sys.exit(main())
"""


def run(server: AnsweringServer, film: Path, folder: Path, **how: Any) -> subprocess.Popen[str]:
    """A process of its own, which waits for what is under way when it is stopped, however busy the machine is."""
    command = [sys.executable, "-c", PATIENT, "analyze", str(film), "--server", server.url]
    command += ["--key", KEY, "--out", str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, **how)


def give_up_roots_powers() -> None:
    """Root may read and write everything, but not without these capabilities (capabilities(7)); others have none."""
    drop, dac_override, dac_read_search = 24, 1, 2
    for capability in (dac_override, dac_read_search):
        ctypes.CDLL(None).prctl(drop, capability, 0, 0, 0)


@pytest.mark.parametrize(("forbidden", "code"), [("film", 3), ("out", 4)])
def test_no_permission(film: Path, server: AnsweringServer, tmp_path: Path, forbidden: str, code: int) -> None:
    copied = Path(shutil.copy(film, tmp_path / "film.mp4"))
    copied.chmod(0o000 if forbidden == "film" else 0o644)
    tmp_path.chmod(0o555)
    asked = run(server, copied, tmp_path / "out", preexec_fn=give_up_roots_powers)
    _, told = asked.communicate(timeout=PATIENCE_SECONDS)
    tmp_path.chmod(0o755)
    assert asked.returncode == code, told
    assert "Permission denied" in " ".join(told.split())
    assert "Traceback" not in told


def test_no_space(film: Path, server: AnsweringServer, tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk: SQLite can't write on either."""
    limited = run(
        server,
        film,
        tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
    )
    _, told = limited.communicate(timeout=PATIENCE_SECONDS)
    assert limited.returncode == 4, told
    assert "can't be stored" in " ".join(told.split())
    assert "Traceback" not in told
    assert analyze(server, film, "--out", tmp_path) == 0
    assert all(shot.analysed for shot in stored(tmp_path))


# --- stopped in the middle -------------------------------------------------------------------------------------------

SINTEL = ROOT / "samples/sintel-trailer.mp4"


def answered(folder: Path) -> set[int]:
    """What a reader sees now."""
    try:
        with open_store(folder) as store:
            return {shot.number for shot in store.shots() if shot.analysed}
    except NoStore:  # it has not begun
        return set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_no_loss(server: AnsweringServer, tmp_path: Path, number: signal.Signals) -> None:
    """One request is answered; what is asked then is under way until the signal has been sent."""
    requests, go_on = itertools.count(), threading.Event()
    server.before = lambda _: next(requests) == 0 or go_on.wait(PATIENCE_SECONDS)
    stopped = run(server, SINTEL, tmp_path)
    wait_for(lambda: answered(tmp_path) or stopped.poll() is not None)
    stopped.send_signal(number)
    go_on.set()
    _, told = stopped.communicate(timeout=PATIENCE_SECONDS)
    assert stopped.returncode == 130, told
    assert "stopped" in told
    assert "Traceback" not in told
    assert sum(server.asked.values()) == len(answered(tmp_path))  # what was under way is stored too
    assert analyze(server, SINTEL, "--out", tmp_path) == 0
    assert set(server.asked.values()) == {1}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("most", [2, pytest.param(20, marks=pytest.mark.acceptance)])
def test_killed_at_random_moments_the_result_is_the_same(server: AnsweringServer, tmp_path: Path, most: int) -> None:
    server.delay = 0.1
    began = time.monotonic()
    undisturbed = run(server, SINTEL, tmp_path / "undisturbed")
    undisturbed.communicate(timeout=PATIENCE_SECONDS)
    span = time.monotonic() - began
    expected = stored(tmp_path / "undisturbed")
    chance = random.Random(6)
    folder, kills = tmp_path / "0", 0
    while kills < most:
        known, asked = answered(folder), server.asked.copy()
        killed = run(server, SINTEL, folder)
        time.sleep(chance.uniform(0.1 * span, span))
        kills += killed.poll() is None  # it may have been faster than the first one
        killed.kill()
        killed.communicate()
        time.sleep(2 * server.delay)  # the server ends what it has begun
        assert all(server.asked[number] == asked[number] for number in known)
        if len(answered(folder)) == len(expected):  # the next one begins anew
            folder = folder.with_name(str(int(folder.name) + 1))
    known, asked = answered(folder), server.asked.copy()
    assert analyze(server, SINTEL, "--out", folder) == 0
    assert all(server.asked[number] == asked[number] for number in known)
    assert stored(folder) == expected


# --- the server ------------------------------------------------------------------------------------------------------


def test_server_commands(live_url: str, film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    connection = ["--server", live_url, "--key", KEY]
    assert main(["server", "ping", *connection]) == 0
    assert "healthy" in capsys.readouterr().out
    assert main(["server", "status", *connection]) == 0
    assert "qwen2-vl-film-tiny" in capsys.readouterr().out
    for shot in ([], [str(film)]):
        assert main(["server", "try", *shot, *connection]) == 0
        told = capsys.readouterr().out
        assert "answer 3: " in told
        assert "suspense" in told
    assert main(["server", "try", "--server", live_url, "--key", "wrong"]) == 5


def test_a_shot_that_fails_in_a_try(server: AnsweringServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.failing = {1}
    assert main(["server", "try", "--server", server.url, "--key", KEY]) == 5
    assert "NaN came out" in capsys.readouterr().out


# --- waiting ---------------------------------------------------------------------------------------------------------


def test_a_wait_is_told_once_for_all_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.sleep", lambda _: None)
    told = Console(file=io.StringIO(), width=100)
    patience = Patience(told)
    for seconds in (1, 1, 1, 1, 2, 2):
        patience.sleep(seconds)
        now[0] += 0.1 if seconds == 1 else 2
    assert told.file.getvalue().count("asking again in 1 s") == 1  # type: ignore[attr-defined]
    assert told.file.getvalue().count("asking again in 2 s") == 1  # type: ignore[attr-defined]


# --- the pace --------------------------------------------------------------------------------------------------------


class Known:
    """So many shots of so much of a film."""

    def __init__(self, expected: int, share_known: float) -> None:
        self.expected = expected
        self.share_known = share_known


def test_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    work = Known(0, 0.0)
    pace = Pace(work)
    assert pace.text() == "finding the first shot"
    work.expected, work.share_known, pace.done = 50, 0.25, 20
    now[0] += 10
    assert pace.text() == "20 of about 200 shots, 2.0 a second, 1:30 left"
    work.share_known, work.expected = 1.0, 180
    assert pace.text() == "20 of 180 shots, 2.0 a second, 1:20 left"


def test_clock() -> None:
    assert [clock(seconds) for seconds in (0, 59.6, 3661, -1)] == ["0:00", "1:00", "1:01:01", "0:00"]
