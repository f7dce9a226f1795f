"""Several processes that read requests and decode frames, around one engine: `server.http_processes`.

One interpreter carries 60 to 140 shots a second, as its cores are (benchmarks/LOG.md); one H100 looks at 71. So here
the server's process keeps the engine and the port, and hands each connection to the process that has the fewest:

    client -> port (this process) -> connection -> a front: request, frames -> pictures -> engine (this process) -> GPU

A front is the whole server but for its engine (`engines.shared`). One that ends is started again, and so is one whose
event loop stands still; its connections are lost with it, the others' are not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import socket
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from engines.base import Engine
from engines.host import EngineHost, Guest
from engines.watchdog import BEAT_SECONDS
from processes import stop_signals
from serving.accepting import accept_connections
from serving.loading import until_loaded

log = logging.getLogger("qwen_server")

RESTART_SECONDS = 1.0
# A front that gave no sign of life for so many looks, one every `BEAT_SECONDS`, is ended; and after so many it gets no
# connection that another can take. Counted in looks: when this whole machine was asleep, that is one.
STUCK_LOOKS = 20
HUSHED_LOOKS = 3
# When a front's own time to drain is over, it still says so to those who wait.
LAST_SECONDS = 10.0

Serve = Callable[[str, Connection, socket.socket], None]
"""What runs in a front, given its name, its way to the engine and where its connections come from."""


@dataclass(slots=True, eq=False)
class Front:
    """One process that serves connections.

    Attributes:
        process: it.
        guest: its way to the engine.
        handed: where its connections go; a byte comes back for each that is closed.
        open: connections that it has.
        beats: its signs of life at the last look.
        silent: looks since it gave one; it must have given one before.
    """

    process: SpawnProcess
    guest: Guest
    handed: socket.socket
    open: int = 0
    beats: int = 0
    silent: int = 0

    @property
    def is_hushed(self) -> bool:
        """Whether it may be stuck."""
        return self.silent >= HUSHED_LOOKS

    def look(self) -> bool:
        """Look for a sign of life; whether it is stuck."""
        beats, self.beats = self.beats, self.guest.beats
        self.silent = self.silent + 1 if beats and beats == self.beats else 0
        return self.silent >= STUCK_LOOKS


class Fronts:
    """The fronts of one server, and the engine that they share.

    Args:
        count: how many.
        serve: what each runs; it is pickled.
        engine: not started yet.
        host: lets them share it.
    """

    def __init__(self, count: int, serve: Serve, engine: Engine, host: EngineHost) -> None:
        self._count = count
        self._serve = serve
        self._engine = engine
        self._host = host
        self._fronts: set[Front] = set()
        self._stop = asyncio.Event()

    async def run(self, listening: socket.socket, drain_seconds: float) -> str | None:
        """Serve until told to stop.

        Args:
            listening: the port.
            drain_seconds: what a stop gives each front.

        Returns:
            Why the engine can't be used, if that is why it ended.
        """
        loop = asyncio.get_running_loop()
        for number in stop_signals():
            loop.add_signal_handler(number, self._stop.set)
        await self._engine.start()
        keepers = [asyncio.create_task(self._keep(number)) for number in range(self._count)]
        works = (self._host.tell_state(), accept_connections(listening, self._hand), self._watch(), self._end_stuck())
        others = [asyncio.create_task(work) for work in works]
        try:
            await self._stop.wait()
            for front in self._fronts:
                front.process.terminate()
            await asyncio.wait(keepers, timeout=drain_seconds + LAST_SECONDS)
        finally:
            for task in (*keepers, *others):
                task.cancel()
            await asyncio.gather(*keepers, *others, return_exceptions=True)
            for front in self._fronts:
                front.process.kill()
            await self._engine.close()
        return self._engine.failure

    async def _watch(self) -> None:
        """Say when the engine is ready; stop when it can't be used."""
        if not await until_loaded(self._engine):
            self._stop.set()

    async def _end_stuck(self) -> None:
        """End the fronts whose event loop stands still. Never ends."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            for front in self._fronts:
                if front.look():
                    log.error("%s is stuck: no sign of life for %.0f s", front.process.name, STUCK_LOOKS * BEAT_SECONDS)
                    front.process.kill()

    # --- the processes -----------------------------------------------------------------------------------------------

    async def _keep(self, number: int) -> None:
        """Keep one front running until the server is stopped."""
        while not self._stop.is_set():
            try:
                front = await self._start(number)
            except OSError as error:
                why = f"can't be started: {error.strerror}"
            else:
                await self._serve_until_gone(front)
                why = f"ended with {front.process.exitcode}"
            if not self._stop.is_set():
                log.error("front %d %s; starting it again", number, why)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), RESTART_SECONDS)

    async def _serve_until_gone(self, front: Front) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(front.handed.fileno(), self._on_closed, front)
        self._fronts.add(front)
        if self._stop.is_set():  # while it was started
            front.process.terminate()
        await front.guest.gone.wait()
        loop.remove_reader(front.handed.fileno())
        front.handed.close()
        await asyncio.to_thread(front.process.join)
        self._fronts.discard(front)

    async def _start(self, number: int) -> Front:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        handed, taken = socket.socketpair()
        handed.setblocking(False)
        name = f"qwen-front-{number}"
        process = context.Process(target=self._serve, args=(name, theirs, taken), name=name, daemon=True)
        await asyncio.to_thread(process.start)
        theirs.close()  # else the pipe would not end when the child does
        taken.close()
        return Front(process, self._host.welcome(ours, name), handed)

    # --- the connections ---------------------------------------------------------------------------------------------

    def _hand(self, connection: socket.socket) -> None:
        """Give a connection to the front that has the fewest, of those that live."""
        with connection:
            for front in sorted(self._fronts, key=lambda front: (front.is_hushed, front.open)):
                with contextlib.suppress(OSError):  # it is stuck or just ended
                    socket.send_fds(front.handed, [b"."], [connection.fileno()])
                    front.open += 1
                    return
        log.error("no front is there to take a connection")

    def _on_closed(self, front: Front) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                told = len(front.handed.recv(4096))
            except ConnectionError:
                told = 0
            front.open -= told
            if not told:
                asyncio.get_running_loop().remove_reader(front.handed.fileno())
