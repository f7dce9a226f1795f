"""A real HTTP server that answers every shot at once, the same to the same frames and sound, and remembers it."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self


ATTRIBUTES = ("suspense", "darkness", "ambiguity", "emotional_tension", "intensity", "motion")


class AnsweringServer:
    """Answers until it is told otherwise.

    Attributes:
        asked: shot_id to how often it was answered.
        failing: the shots that get an error.
        reason: its detail.
        captions: shot_id to what is said of it; of the others a digest of what was sent.
        delay: seconds before each answer.
        before: is told the shots of a request before it is answered, and may wait.
        dies_after: how many requests are answered at all.
        busy: how many requests get `busy_status` first.
        busy_status: 503, or what a proxy says.
        status: of every answer, where it is not 200.
        refuses: the status of every answer about shots, while /health says that all is well; None to answer.
        model: X-Model of every answer; None for none.
    """

    def __init__(self) -> None:
        self.asked: Counter[int] = Counter()
        self.failing: set[int] = set()
        self.reason = "NaN came out"
        self.captions: dict[int, str] = {}
        self.delay = 0.0
        self.before: Callable[[list[int]], object] = lambda _: None
        self.dies_after: float = math.inf
        self.busy = 0
        self.busy_status = 503
        self.status = 200
        self.refuses: int | None = None
        self.model: str | None = None
        self._turn = threading.Lock()
        ours = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                shots = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["shots"]
                time.sleep(ours.delay)
                ours.before([shot["shot_id"] for shot in shots])
                if ours.is_dead():
                    self.close_connection = True
                elif ours.busy > 0:
                    ours.busy -= 1
                    self._send(ours.busy_status, _problem(ours.busy_status), {"Retry-After": "0"})
                elif (status := ours.refuses or ours.status) != 200:
                    self._send(status, _problem(status), {})
                else:
                    # Before it is sent: whoever has the answer may look.
                    ours.asked.update(shot["shot_id"] for shot in shots)
                    self._send(200, ours.answer(shots), {})

            def do_GET(self) -> None:
                health = {"status": "healthy", "model": "m", "device": "cpu", "gpu_count": 0, "gpu_memory_total": None}
                if ours.status == 200:
                    self._send(200, health, {})
                else:
                    self._send(ours.status, "a proxy's page", {})

            def _send(self, status: int, body: Any, headers: dict[str, str]) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                named = {"X-Model": ours.model} if ours.model else {}
                for name, value in {**headers, **named, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign] # clients may be killed
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def is_dead(self) -> bool:
        with self._turn:
            self.dies_after -= 1
            return self.dies_after < 0

    def answer(self, shots: list[Any]) -> dict[str, list[Any]]:
        results, errors = [], []
        for index, shot in enumerate(shots):
            if shot["shot_id"] in self.failing:
                told = {"type": "urn:qwen-shots:error:not-a-number", "title": "No number", "detail": self.reason}
                errors.append({"index": index, "shot_id": shot["shot_id"], **told})
            else:
                digest = hashlib.sha256(json.dumps([shot["images"], shot["audio_features"]]).encode())
                scores = {name: byte / 255 for name, byte in zip(ATTRIBUTES, digest.digest(), strict=False)}
                caption = self.captions.get(shot["shot_id"], digest.hexdigest())
                results.append({"shot_id": shot["shot_id"], "caption": caption, "attributes": scores})
        return {"results": results, "errors": errors}

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _problem(status: int) -> dict[str, Any]:
    return {"type": "urn:x", "title": "No", "status": status, "detail": "not now", "request_id": "1"}
