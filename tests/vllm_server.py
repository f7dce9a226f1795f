"""A real vLLM on the CPU, serving the bundled checkpoint in float32. `scripts/setup_vllm.sh` installs it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import httpx

from tests.helpers import BUNDLED, ROOT, free_port

VLLM = ROOT / ".venv-vllm/bin/vllm"
START_SECONDS = 300.0


class VllmServer:
    """One vLLM: its API server, and the processes that hold the model.

    Args:
        log: where it writes.
    """

    def __init__(self, log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, name: str = BUNDLED) -> None:
        """Serve under a name, and wait until it does."""
        command: list[str | Path] = [
            VLLM, "serve", ROOT / BUNDLED, "--served-model-name", name, "--host", "127.0.0.1", "--port", str(self.port),
            "--dtype", "float32", "--max-model-len", "2048", "--enforce-eager", "--limit-mm-per-prompt", '{"image":10}',
        ]  # fmt: skip
        environ = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        with self._log.open("ab") as out:
            # A session of its own, so that all its processes can be reached together.
            self._process = subprocess.Popen(command, env=environ, stdout=out, stderr=out, start_new_session=True)
        end = time.monotonic() + START_SECONDS
        while not self._answers():
            assert self._process.poll() is None, f"vLLM ended; see {self._log}"
            assert time.monotonic() < end, f"vLLM did not come up; see {self._log}"
            time.sleep(0.5)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all its processes."""
        assert self._process
        os.killpg(self._process.pid, number)

    def kill_model(self) -> None:
        """Kill the engine's process, as the system does when memory runs out; the API server is left to see it."""
        assert self._process
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        (core,) = [pid for pid in children if "EngineCore" in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(int(core), signal.SIGKILL)

    def stop(self) -> None:
        """End all its processes."""
        if self._process is None:
            return
        try:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
        except ProcessLookupError:
            pass  # they have ended
        self._process.wait(timeout=30)
        self._process = None

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/models").status_code == 200
        except httpx.TransportError:
            return False
