"""`server.log_format: json`: every line is JSON, whoever writes it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.helpers import ROOT

# What libraries and Python itself write past the log; each line of it is one of these.
NOISE = r"""
import logging, multiprocessing, os, subprocess, sys, threading, warnings
from tqdm import tqdm
from logs import json_lines, log_to_terminal

def child():
    log_to_terminal("json")
    logging.getLogger("child").error("logged by a child", extra={"fields": {"shots": 3}})
    raise RuntimeError("of a child")

def fail():
    raise RuntimeError("of a thread")

if __name__ == "__main__":
    log_to_terminal("json")
    with json_lines():
        logging.getLogger("here").warning("logged")
        print("printed")
        print('["a list"]')
        warnings.warn("a warning")
        os.write(1, b"raw \xff bytes\n")
        for _ in tqdm(range(3), desc="loading"): pass
        subprocess.run(["sh", "-c", "echo from a program; echo 'ERROR: of a program' >&2"])
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        process = multiprocessing.get_context("spawn").Process(target=child)
        process.start()
        process.join()
        sys.stderr.write("no end of line")
        END
"""


def lines_of(tmp_path: Any, end: str) -> tuple[int, list[dict[str, Any]]]:
    script = tmp_path / "noise.py"
    script.write_text(NOISE.replace("END", end))
    ran = subprocess.run(
        [sys.executable, str(script)], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert ran.stdout == ""
    return ran.returncode, [json.loads(line) for line in ran.stderr.splitlines()]


@pytest.mark.parametrize(("end", "code"), [("raise ValueError('at last')", 1), ("", 0)])
def test_every_line_is_json(tmp_path: Any, end: str, code: int) -> None:
    returned, lines = lines_of(tmp_path, end)
    assert returned == code
    for line in lines:
        assert {"time", "level", "logger", "message"} <= set(line)
    messages = [line["message"] for line in lines]
    for expected in ("logged", "printed", '["a list"]', "raw \ufffd bytes", "from a program", "no end of line"):
        assert messages.count(expected) == 1, expected
    for part in ("UserWarning: a warning", "loading: 100%", "RuntimeError: of a thread", "RuntimeError: of a child"):
        assert any(part in message for message in messages), part
    by_message = {line["message"]: line for line in lines}
    assert by_message["logged by a child"]["shots"] == 3
    assert by_message["ERROR: of a program"]["level"] == "error"
    assert any("ValueError: at last" in line.get("exception", "") for line in lines) == bool(code)
