"""`qwen-shots rank`, `similar`, `show` and `export` as a user runs them, on a folder that `analyze` made."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import opentimelineio as otio
import pycmx
import pytest
import webvtt
from pyarrow import parquet
from rich.text import Text

from qwen_shots.client.cli.files import write_whole
from qwen_shots.client.cli.main import COMMANDS, main, parser
from qwen_shots.client.selection import NUMBERS, TEXTS
from qwen_shots.client.store import FILE_NAME, ShotRecord, open_store
from qwen_shots.client.where import parse_where
from qwen_shots.client.writer import Answered, write_store
from qwen_shots.schemas import Analysis
from tests.helpers import KEY, PATIENCE_SECONDS, ROOT
from tests.qwen_shots.client.answering import ATTRIBUTES, AnsweringServer
from tests.qwen_shots.client.conftest import CAPTIONS, FAILED
from tests.qwen_shots.client.test_cli import give_up_roots_powers
from tests.qwen_shots.client.test_store import FILM

PROGRAM = [sys.executable, "-m", "qwen_shots.client.cli.main"]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))


def numbers(text: str) -> list[int]:
    return [int(row["shot"]) for row in rows(text)]


def known(answers: Path) -> list[ShotRecord]:
    with open_store(answers) as store:
        return store.shots()


def highest(shots: list[ShotRecord], name: str) -> list[int]:
    picked = sorted((shot for shot in shots if shot.analysed), key=lambda shot: -shot.scores[name])
    return [shot.number for shot in picked]


# --- rank ------------------------------------------------------------------------------------------------------------


def test_rank(answers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", str(answers), "--by", "suspense"]) == 0
    out, err = capsys.readouterr()
    expected = highest(known(answers), "suspense")
    assert numbers(out) == expected
    assert FAILED not in expected
    assert "8 of 9 shots are analysed" in " ".join(err.split())
    assert main(["rank", str(answers), "--by", "suspense", "--top", "3"]) == 0
    assert numbers(capsys.readouterr().out) == expected[:3]


def test_rank_without_spoilers_and_with_a_condition(answers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    condition = "duration > 1.2 and not 'crowd' in caption"
    assert main(["rank", str(answers), "--by", "start", "--until", "70%", "--where", condition]) == 0
    assert numbers(capsys.readouterr().out) == [4, 1]  # 3 and 6 last one second, 5 failed, 7 ends at 71 %
    assert main(["rank", str(answers), "--by", "start", "--where", "duration > 9"]) == 0
    out, err = capsys.readouterr()
    assert (numbers(out), "no shot meets this" in err) == ([], True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--by", "fear"], "they can by ambiguity, darkness"),
        (["--by", "motion", "--where", "motion = 1"], "== compares"),
        (["--by", "motion", "--where", "suspens > 1"], "is suspense meant?"),
        (["--by", "motion", "--until", "the end"], "looks like 70%"),
        (["--by", "motion", "--top", "0"], "at least 1"),
    ],
)
def test_what_rank_refuses(answers: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rank", str(answers), *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, words in " ".join(err.split())) == ("", True), err


def test_a_terminal_gets_a_table(answers: Path) -> None:
    """With the values as bars; nothing that a caption holds is taken for markup or reaches the terminal's controls."""
    ours, theirs = pty.openpty()
    ranked = subprocess.Popen(
        [*PROGRAM, "rank", str(answers), "--by", "motion"], cwd=ROOT, stdout=theirs, stderr=subprocess.DEVNULL,
        env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    told = b""
    try:
        while part := os.read(ours, 65536):
            told += part
    except OSError:  # Linux says so at the end
        pass
    os.close(ours)
    assert ranked.wait(timeout=PATIENCE_SECONDS) == 0
    text = told.decode()
    assert "caption" in text
    assert "█" in text
    assert "0:00:01.2" in text
    assert "</script><script>alert(1)" in text


def test_a_narrow_terminal_gets_numbers_and_captions(answers: Path) -> None:
    ours, theirs = pty.openpty()
    ranked = subprocess.Popen(
        [*PROGRAM, "rank", str(answers), "--by", "emotional_tension", "--where", "shot < 4"],
        cwd=ROOT, stdout=theirs, stderr=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "40", "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    text = ""
    try:
        while piece := os.read(ours, 65536):
            text += piece.decode(errors="replace")
    except OSError:  # how Linux tells a terminal's end
        pass
    finally:
        os.close(ours)
    assert ranked.wait(PATIENCE_SECONDS) == 0
    lines = Text.from_ansi(text.replace("\r", "")).plain.splitlines()
    assert {line.split()[0] for line in lines if line.strip()} >= {"1", "2", "3"}
    assert any("hallway." in line for line in lines)
    assert max(map(len, lines)) <= 40


@pytest.mark.parametrize("command", [["show", "9"], ["rank", "--by", "motion"]])
def test_an_output_that_does_not_know_every_sign(answers: Path, command: list[str]) -> None:
    name, *others = command
    done = subprocess.run(
        [*PROGRAM, name, str(answers), *others],
        cwd=ROOT, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "latin-1"}, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count(b"Traceback")) == (0, 0)
    assert b"Gegenlicht, \\u591c." in done.stdout


def test_a_reader_that_has_enough(answers: Path) -> None:
    command = f"{' '.join(PROGRAM)} rank {answers} --by motion | head -0"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert "Broken" not in done.stderr
    assert done.returncode == 0


# --- similar, show ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(["walking"], [2, 1]), (["dark", "hallway"], [1, 3]), (["--to", "1", "--top", "2"], [3, 2]), (["zebra"], [])],
)
def test_similar(answers: Path, arguments: list[str], expected: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["similar", str(answers), *arguments]) == 0
    out, err = capsys.readouterr()
    assert numbers(out) == expected
    assert ("no caption fits" in err) == (not expected)


@pytest.mark.parametrize(
    "arguments", [[], ["dark", "--to", "1"], ["--to", str(FAILED)], ["--to", "99"], ["a", "--top", "0"]]
)
def test_what_similar_refuses(answers: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["similar", str(answers), *arguments]) == 2
    assert "ERROR" in capsys.readouterr().err


def test_show(answers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(answers), "2"]) == 0
    out = capsys.readouterr().out
    assert CAPTIONS[2] in out
    assert "00:00:01:06 to 00:00:02:12 at 24 frames a second" in out
    assert "0:00:01.2 to 0:00:02.5, 1.25 s" in out
    assert f"{known(answers)[1].scores['intensity']:.4f}" in out


def test_show_a_shot_that_failed_and_one_that_is_not_there(answers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(answers), str(FAILED)]) == 1
    assert "No number: NaN came out" in capsys.readouterr().out
    assert main(["show", str(answers), "10"]) == 2
    assert "known are 1 to 9" in capsys.readouterr().err


# --- export ----------------------------------------------------------------------------------------------------------

ALL_FILES = ("a.csv", "a.jsonl", "a.parquet", "a.vtt", "a.edl", "a.otio", "a.fcpxml")


def export(answers: Path, folder: Path, *arguments: str, files: tuple[str, ...] = ALL_FILES) -> list[Path]:
    paths = [folder / name for name in files]
    assert main(["export", str(answers), *map(str, paths), *arguments]) == 0
    return paths


def test_export_of_the_film(answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, lines, columns, captions, edl, timeline, fcpxml = export(answers, tmp_path)
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / name) for name in ALL_FILES]
    with table.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file, strict=True))
    assert [row["shot"] for row in found] == list("123456789")
    assert found[FAILED - 1]["error"] == "No number: NaN came out"
    objects = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    assert {each["shot"]: each["caption"] for each in objects if each["caption"]} == CAPTIONS
    assert parquet.read_table(columns).num_rows == 9
    assert len(webvtt.read(str(captions)).captions) == 8
    with edl.open(encoding="utf-8", newline="") as file:
        edits = [event.edits[0] for event in pycmx.parse_cmx3600(file).events]
    assert [edit.record_in for edit in edits][:3] == ["00:00:00:00", "00:00:01:06", "00:00:02:12"]
    read = otio.adapters.read_from_file(str(timeline))
    assert [clip.metadata["qwen_shots"]["shot"] for clip in read.find_clips()] == list(range(1, 10))
    (project,) = otio.adapters.read_from_file(str(fcpxml), "fcpx_xml")
    assert len(list(project.find_clips())) == 9


def test_export_of_a_selection(answers: Path, tmp_path: Path) -> None:
    """In its own order, one right after another, from an hour on or from where it is told."""
    expected = highest(known(answers), "intensity")[:3]
    table, timeline = export(answers, tmp_path, "--by", "intensity", "--top", "3", files=("b.CSV", "b.otio"))
    assert [int(line.split(",")[0]) for line in table.read_text(encoding="utf-8").splitlines()[1:]] == expected
    read = otio.adapters.read_from_file(str(timeline))
    assert [clip.metadata["qwen_shots"]["shot"] for clip in read.find_clips()] == expected
    assert read.global_start_time.to_timecode() == "01:00:00:00"
    (edl,) = export(answers, tmp_path, "--until", "3", "--start", "10:00:00:00", files=("c.edl",))
    with edl.open(encoding="utf-8", newline="") as file:
        edits = [event.edits[0] for event in pycmx.parse_cmx3600(file).events]
    assert [(edit.record_in, edit.record_out) for edit in edits] == [
        ("10:00:00:00", "10:00:01:06"), ("10:00:01:06", "10:00:02:12"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "ending"),
    [
        (["-"], "csv"),
        (["--out", "-"], "csv"),
        (["--out", "-", "--format", "edl"], "edl"),
        (["-", "--format", "otio"], "otio"),
        (["-", "--format", "parquet"], "parquet"),
    ],
)
def test_export_to_standard_output(
    answers: Path, tmp_path: Path, arguments: list[str], ending: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (file,) = export(answers, tmp_path, files=(f"a.{ending}",))
    capfdbinary.readouterr()
    assert main(["export", str(answers), *arguments, "--out", str(tmp_path / "b.csv")]) == 0
    assert capfdbinary.readouterr().out == file.read_bytes()
    assert (tmp_path / "b.csv").exists()


def test_only_otio_needs_opentimelineio(
    answers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "opentimelineio", None)
    export(answers, tmp_path, files=("a.csv", "a.edl", "a.fcpxml", "a.vtt"))
    capsys.readouterr()
    assert main(["export", str(answers), str(tmp_path / "a.otio")]) == 2
    assert "OTIO timelines need OpenTimelineIO: pip install opentimelineio" in capsys.readouterr().err
    assert not (tmp_path / "a.otio").exists()


def test_a_selection_has_the_films_columns_even_where_it_is_empty(
    answers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, columns = export(answers, tmp_path, "--where", "duration < 0", files=("s.csv", "s.parquet"))
    names = [*NUMBERS, *TEXTS, *ATTRIBUTES, "error", "model"]
    assert table.read_text(encoding="utf-8").strip().split(",") == names
    assert parquet.read_schema(columns).names == names
    capsys.readouterr()
    assert main(["rank", str(answers), "--by", "motion", "--where", "duration < 0"]) == 0
    assert capsys.readouterr().out.split() == names


def test_export_of_a_long_film_is_several_edls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = replace(FILM, duration=1500.0)
    many = [ShotRecord(n, n - 1.0, float(n), 24 * (n - 1), 24 * n) for n in range(1, 1501)]
    with write_store(tmp_path / "long", film) as writer:
        writer.add_shots(many)
        told = Analysis(shot_id=1, caption="A street.", attributes={"motion": 0.5})
        writer.add_answers([Answered(shot.number, told, None, None) for shot in many])
        writer.set_complete(film.duration)
    export(tmp_path / "long", tmp_path, files=("all.edl",))
    out, err = capsys.readouterr()
    assert out.splitlines() == [str(tmp_path / "all-1.edl"), str(tmp_path / "all-2.edl")]
    assert err == ""
    lengths = []
    for part in (1, 2):
        with (tmp_path / f"all-{part}.edl").open(encoding="utf-8", newline="") as file:
            lengths.append(len(list(pycmx.parse_cmx3600(file).events)))
    assert lengths == [999, 501]
    assert not (tmp_path / "all.edl").exists()
    assert main(["export", str(tmp_path / "long"), "-", "--format", "edl"]) == 2
    assert "2 files of 999 shots each" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["a.xml"], 2, "ends in none of .csv"),
        (["a.edl", "--start", "25:00:00:00"], 2, "23:59:59:23"),
        (["a.edl", "--drop-frame"], 2, "29.97"),
        (["a.edl", "--by", "fear"], 2, "they can by"),
        (["nowhere/a.csv"], 4, "No such file"),
        (["b.csv", "folder.csv"], 4, "folder.csv can't be written"),
    ],
)
def test_what_export_refuses(
    answers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "folder.csv").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(answers), *arguments]) == code
    assert words in " ".join(capsys.readouterr().err.split())
    assert {file.name for file in tmp_path.iterdir()} <= {"folder.csv", "b.csv"}  # nothing half done


@pytest.mark.parametrize("out", [".", "/", "x" * 250, "file/a.html"])
def test_reports_that_can_be_no_file(
    answers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(answers), "--out", out]) == 4
    assert "can't be written" in " ".join(capsys.readouterr().err.split())


def test_a_film_that_is_no_address(answers: Path) -> None:
    assert main(["report", str(answers), "--film", "http://[bad"]) == 2


def test_a_stop_while_a_file_is_written_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a.csv", b"half")
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_not_utf8(film: Path, tmp_path: Path) -> None:
    """Linux takes any bytes; what is printed is the name as it is."""
    odd, folder = (tmp_path / os.fsdecode(name) for name in (b"\xff \xe9#1?.mp4", b"\xff"))
    shutil.copy(film, odd)
    with AnsweringServer() as running:
        commands: list[list[str | Path]] = [
            ["analyze", odd, "--out", folder, "--server", running.url, "--key", KEY],
            ["show", folder, "1"],
            ["report", folder],
            ["export", folder, *(folder / name for name in ALL_FILES)],
        ]
        done = [subprocess.run([*PROGRAM, *each], cwd=ROOT, capture_output=True, check=False) for each in commands]
    assert [each.returncode for each in done] == [0] * 4, [each.stderr for each in done]
    assert done[2].stdout == os.fsencode(folder / "report.html") + b"\n"
    assert b"%FF%20%E9%231%3F.mp4#t=" in (folder / "report.html").read_bytes()


# --- what the documents say ------------------------------------------------------------------------------------------

DOCUMENTED = [
    line.split("  #")[0].strip()
    for name in ("README.md", "docs/client.md")
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines()
    if line.startswith("qwen-shots ")
]


@pytest.mark.parametrize("command", DOCUMENTED)
def test_documented_commands_exist(command: str) -> None:
    """argparse knows each with its options, and the conditions are good ones."""
    options = parser().parse_args(shlex.split(command)[1:])
    if where := getattr(options, "where", None):
        parse_where(where, [*NUMBERS, *ATTRIBUTES], TEXTS)


def test_every_command_is_documented() -> None:
    assert {command.split()[1] for command in DOCUMENTED} == {each.__name__.split(".")[-1] for each in COMMANDS}


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [["rank", "--by", "motion"], ["similar", "dark"], ["show", "1"], ["export", "a.csv"]]
)
def test_folders_without_answers(
    answers: Path, tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    name, *rest = command
    assert main([name, str(tmp_path), *rest]) == 4
    assert "qwen-shots analyze FILM" in " ".join(capsys.readouterr().err.split())
    write_store(tmp_path / "begun", FILM).close()
    assert main([name, str(tmp_path / "begun"), *rest]) == 4
    assert "has an answer yet" in " ".join(capsys.readouterr().err.split())
    shutil.copytree(answers, tmp_path / "other")
    assert main([name, str(tmp_path), *rest]) == 4
    assert "name one: begun, other" in " ".join(capsys.readouterr().err.split())
    (tmp_path / "other" / FILE_NAME).write_text("not a database, but long enough to be taken for one" * 30)
    assert main([name, str(tmp_path / "other"), *rest]) == 4
    assert "can't be read" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("name", ["x" * 300, "forbidden"])
def test_folders_that_cant_be_looked_into(answers: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(answers, tmp_path / "forbidden").chmod(0o000)
    ranked = subprocess.run(
        [*PROGRAM, "rank", str(tmp_path / name), "--by", "motion"], cwd=ROOT, capture_output=True, text=True,
        check=False, preexec_fn=give_up_roots_powers,
    )  # fmt: skip
    (tmp_path / "forbidden").chmod(0o755)
    assert ranked.returncode == 4, ranked.stderr
    assert "can't be read" in " ".join(ranked.stderr.split())


READING = [
    ["rank", "--by", "motion"], ["similar", "night"], ["show", "1"], ["export", "-"], ["report"], ["analyze"],
]  # fmt: skip


@pytest.mark.parametrize("command", READING, ids=lambda command: command[0])
@pytest.mark.parametrize("damage", [1000, 5000, 12000])
def test_a_damaged_folder_is_one_line_and_exit_code_4(
    answers: Path, film: Path, tmp_path: Path, command: list[str], damage: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """In whatever part of the file, for each command that reads it."""
    data = bytearray((answers / FILE_NAME).read_bytes())
    data[damage:] = b"\x9b" * (len(data) - damage)  # as bytes they would steer a terminal
    (tmp_path / FILE_NAME).write_bytes(data)
    name, *rest = command
    where = [str(film), "--out", str(tmp_path)] if name == "analyze" else [str(tmp_path)]
    rest = [str(tmp_path / "a.csv") if word == "-" else word for word in rest]
    assert main([name, *where, *rest]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("ERROR: ")
    assert "\x9b" not in line
