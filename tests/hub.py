"""A model hub on this machine: the few routes of the Hugging Face hub that a download needs, over real HTTP."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "c0ffee" * 6 + "c0ff"


@dataclass
class Hub:
    """One repository, and what goes wrong with it.

    Attributes:
        name: of the model.
        folder: its files.
        cut_after: bytes of a weight file after which the connection is cut, once.
        stall_after: bytes of a weight file after which nothing more comes, once.
        refusal: status, error code and where: "api" (the listing) or "file" (each file).
        claimed_size: bytes that the listing gives for each weight file, instead of the truth.
        asked: file name and Range of each GET of a file.
        stalled: set once a transfer stalls.
    """

    name: str
    folder: Path
    cut_after: int | None = None
    stall_after: int | None = None
    refusal: tuple[int, str, str] | None = None
    claimed_size: int | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def files(self) -> list[dict[str, Any]]:
        """Every file with its size and hash, as both listings need them."""
        return [
            {"path": file.name, "size": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
            for file in sorted(self.folder.iterdir())
        ]


class Handler(BaseHTTPRequestHandler):
    """Answers for the hub of its server."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        """Be quiet."""

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        where = "api" if path.startswith("/api/") else "file"
        refusal = self.hub.refusal
        if self.hub.name not in path:
            self.refuse(404, "RepoNotFound")
        elif refusal and refusal[2] == where:
            self.refuse(refusal[0], refusal[1])
        elif f"/tree/{COMMIT}" in path:
            self.say([self.tree_entry(file) for file in self.hub.files()])
        elif where == "api":
            self.say({"id": self.hub.name, "sha": COMMIT, "siblings": [self.sibling(f) for f in self.hub.files()]})
        else:
            self.send_file(path.rsplit("/", 1)[1], with_body)

    def lfs_size(self, file: dict[str, Any]) -> int:
        return self.hub.claimed_size or int(file["size"])

    def sibling(self, file: dict[str, Any]) -> dict[str, Any]:
        lfs = {"size": self.lfs_size(file), "sha256": file["sha256"], "pointerSize": 130}
        entry = {"rfilename": file["path"], "size": file["size"], "blobId": file["sha256"][:40]}
        return entry | ({"lfs": lfs} if file["path"].endswith(".safetensors") else {})

    def tree_entry(self, file: dict[str, Any]) -> dict[str, Any]:
        lfs = {"oid": file["sha256"], "size": self.lfs_size(file), "pointerSize": 130}
        entry = {"type": "file", "path": file["path"], "size": file["size"], "oid": file["sha256"][:40]}
        return entry | ({"lfs": lfs} if file["path"].endswith(".safetensors") else {})

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def say(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, name: str, with_body: bool) -> None:
        data = (self.hub.folder / name).read_bytes()
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - start))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if with_body:
            self.hub.asked.append((name, wanted))
            self.send_body(name, data[start:])

    def send_body(self, name: str, data: bytes) -> None:
        hub = self.hub
        limit = hub.cut_after or hub.stall_after
        if not name.endswith(".safetensors") or limit is None or len(data) < limit:
            self.wfile.write(data)
            return
        self.wfile.write(data[:limit])
        self.wfile.flush()
        if hub.stall_after:
            hub.stall_after = None
            hub.stalled.set()
            self.rfile.read()  # until the client goes away
        hub.cut_after = None
        self.close_connection = True


@contextmanager
def running_hub(hub: Hub) -> Iterator[Hub]:
    """The hub on a free port; `hub.url` is where."""
    handler = type("HubHandler", (Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
