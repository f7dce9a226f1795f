"""`make readme`: start a server on the bundled checkpoint, run the README's commands, write in what it answers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from scripts import healthy
from scripts.readme import examples, picture, report
from scripts.readme.sample import CREDIT, REQUEST

PICTURE = examples.ROOT / "docs/answer.webp"
START_SECONDS = 300
KEY = "helloagorevski"  # the public one, good on this machine


def bundled_model() -> str:
    """The checkpoint that `start_server.sh --demo` serves."""
    named = re.search(r"^BUNDLED_MODEL=(\S+)$", (examples.ROOT / "scripts/server_process.sh").read_text(), re.MULTILINE)
    assert named, "scripts/server_process.sh names no BUNDLED_MODEL"
    return named[1]


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """A server on a free port; host and port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    ours = {"MODEL__NAME": bundled_model(), "SERVER__HOST": "127.0.0.1", "SERVER__PORT": address.partition(":")[2]}
    plain = {name: value for name, value in os.environ.items() if not name.startswith("QWEN_SERVER")}
    environ = plain | {f"QWEN_SERVER__{name}": value for name, value in ours.items()}
    with subprocess.Popen([sys.executable, "server.py"], cwd=examples.ROOT, env=environ) as server:
        try:
            deadline = time.monotonic() + START_SECONDS
            while healthy.main(f"http://{address}"):
                if server.poll() is not None or time.monotonic() > deadline:
                    sys.exit("the server did not become healthy; its log stands above")
                time.sleep(0.2)
            yield address
        finally:
            server.terminate()


def main() -> None:
    """Refresh README.md, its picture, and the report's picture in docs/client.md."""
    text = examples.README.read_text(encoding="utf-8")
    with serving() as address:
        text = examples.refreshed(text, address)
        report.draw(f"http://{address}", KEY).save(report.PICTURE, quality=85, method=6)
    examples.README.write_text(text, encoding="utf-8")
    asked = json.loads(REQUEST.read_text(encoding="utf-8"))
    answer = next(json.loads(example.answer) for example in examples.find(text) if REQUEST.name in example.command)
    PICTURE.parent.mkdir(exist_ok=True)
    picture.draw(asked["images"], answer, CREDIT).save(PICTURE, quality=85, method=6)


if __name__ == "__main__":
    main()
