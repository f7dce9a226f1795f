"""The log: lines for people, or one JSON object a line for machines (`server.log_format`)."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
# Under this name a record carries what a machine would otherwise have to read out of its message.
FIELDS = "fields"

STDOUT, STDERR = 1, 2
# What ends the thread of `json_lines`; no text has a NUL byte.
END = b"\0end of the log\n"
LONGEST_LINE = 2**20
JSON_BEGIN = '{"time": "'

log = logging.getLogger("qwen_server")


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, the record's fields, and an error's traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; all in ASCII, so that no terminal or file is asked what it can show."""
        more = dict(getattr(record, FIELDS, {}))
        if record.exc_info:
            more["exception"] = self.formatException(record.exc_info)
        return _json_line(record.created, record.levelname.lower(), record.name, record.getMessage(), more)


def log_to_terminal(log_format: str = "text") -> None:
    """Every line of the log goes to standard error; a later call changes the format.

    Args:
        log_format: `text` or `json`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else logging.Formatter(TEXT))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


@contextlib.contextmanager
def json_lines() -> Iterator[None]:
    """Make JSON of every line that this process, and those that it starts meanwhile, write to stdout and stderr.

    Libraries print warnings and progress bars, Python prints tracebacks, and C code writes past Python. All of it goes
    through a pipe to a thread that passes lines of JSON on, to stderr, and wraps the others.
    """
    saved = [os.dup(number) for number in (STDOUT, STDERR)]
    reading, writing = os.pipe()
    for number in (STDOUT, STDERR):
        os.dup2(writing, number)
    os.close(writing)
    wrapping = threading.Thread(target=_wrap, args=(reading, saved[1]), name="json-lines", daemon=True)
    wrapping.start()
    try:
        yield
    except Exception:
        log.exception("the server ended with an error that was not foreseen")
        raise SystemExit(1) from None
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.write(STDERR, b"\n" + END)
        wrapping.join()
        for number, before in zip((STDOUT, STDERR), saved, strict=True):
            os.dup2(before, number)
            os.close(before)


def _wrap(reading: int, out: int) -> None:
    with open(reading, "rb") as pipe:
        while (line := pipe.readline(LONGEST_LINE)) not in (b"", END):
            for text in _json_of(line.decode(errors="replace")):
                # A full disk must not stop those who write into the pipe.
                with contextlib.suppress(OSError):
                    os.write(out, text.encode() + b"\n")


def _json_of(line: str) -> Iterator[str]:
    """One line of JSON, or two where the log's line was written behind a progress bar that had not ended its own."""
    other, brace, rest = line.partition(JSON_BEGIN)
    if brace and not _is_json(brace + rest):
        other, brace = line, ""
    other = other.strip().rpartition("\r")[2]  # of a progress bar, what was seen last
    if other:
        level = "error" if other.startswith("ERROR: ") else "info"
        yield other if _is_json(other) else _json_line(time.time(), level, "output", other, {})
    if brace:
        yield (brace + rest).strip()


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _json_line(seconds: float, level: str, logger: str, message: str, more: dict[str, Any]) -> str:
    moment = datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds")
    return json.dumps({"time": moment, "level": level, "logger": logger, "message": message, **more})
