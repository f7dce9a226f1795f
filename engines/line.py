"""The way to one endpoint: the shots that it has in hand, and whether it gets more of them.

When an endpoint leaves a shot unanswered, the shot goes back to the queue that all share, for any endpoint, and this
one gets no further shot until it has answered a question of ours. Its other shots go on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from functools import partial

from engines.base import ShotPictures, ShotReading
from engines.conversation import Conversation
from engines.endpoint import Endpoint, NoAnswer
from engines.failures import FailureStreak
from engines.interview import Interview
from engines.probe import probe_shot, warn_of_few_numbers
from engines.scheduler import Pending, ShotQueue
from model_loader import PictureSpec
from qwen_shots.errors import CannotLoad, EngineLost, QwenShotsError, ShotFailed
from settings import Settings

log = logging.getLogger(__name__)

WATCH_SECONDS = 5.0

# Enough shots for all requests that may be on their way, while a shot waits for its first answer or its caption.
REQUESTS_A_SHOT = 4


class Line:
    """One endpoint and the shots that it has in hand.

    Args:
        endpoint: who is asked.
        queue: where shots go back to.
        settings: the whole configuration.
        spec: how the model wants its pictures.
        on_room: called when it may have become able to take a shot.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        queue: ShotQueue,
        settings: Settings,
        spec: PictureSpec,
        on_room: Callable[[], None],
    ) -> None:
        self.endpoint = endpoint
        self.shots_at_once = max(1, settings.model.endpoint_requests // REQUESTS_A_SHOT)
        self._queue = queue
        self._settings = settings
        self._probe = probe_shot(spec)
        self._in_hand: set[asyncio.Task[None]] = set()
        self._trusted = False
        self._doubt = asyncio.Event()
        self._on_room = on_room
        self._streak = FailureStreak()

    @property
    def busy(self) -> float:
        """Share of its room that is taken, 0..1; infinite where it takes no shots now."""
        return len(self._in_hand) / self.shots_at_once if self._trusted else math.inf

    async def check(self) -> None:
        """See that the endpoint serves the model and answers a question.

        Raises:
            EngineLost: it does not answer now.
            CannotLoad: it will not, until somebody changes something.
        """
        try:
            await self.endpoint.find_model()
            reading = await self._interview(self._probe).first_reading()
            first = next(iter(self._settings.attributes))
            warn_of_few_numbers(self.endpoint.url, {first: [reading]}, self._settings.processing.least_mass)
        except NoAnswer as error:
            raise EngineLost(str(error)) from None
        except ShotFailed as error:
            raise CannotLoad(f"it serves the model but does not answer: {error.detail}") from None

    async def serve(self) -> None:
        """Hand shots to the endpoint until it is lost; those in hand then go back to the queue.

        Raises:
            EngineLost, CannotLoad: as `check`.
        """
        try:
            while True:
                self._trusted = True
                self._on_room()
                await self._until_doubt()
                self._trusted = False
                await self.check()
        finally:
            self._trusted = False
            for task in self._in_hand:
                task.cancel()
            await asyncio.gather(*self._in_hand, return_exceptions=True)

    def hand(self, pending: Pending) -> None:
        """Ask the endpoint about a shot."""
        task = asyncio.create_task(self._answer(pending))
        self._in_hand.add(task)
        task.add_done_callback(self._done)
        # A client that goes away takes its requests with it.
        pending.answer.add_done_callback(partial(_end, task))

    def _done(self, task: asyncio.Task[None]) -> None:
        self._in_hand.discard(task)
        self._on_room()

    async def _until_doubt(self) -> None:
        """Wait until a shot is left unanswered, or the list of models is not what it should be."""
        self._doubt.clear()
        tasks = (asyncio.create_task(self._doubt.wait()), asyncio.create_task(self._watch()))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        """Ask for the models now and then; ends when something is wrong with the answer."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await self.endpoint.find_model()
            except (NoAnswer, CannotLoad):
                return

    async def _answer(self, pending: Pending) -> None:
        began = time.monotonic()
        try:
            reading = await self._look(pending.shot)
        except NoAnswer as error:
            log.warning("%s left a shot unanswered: %s", self.endpoint.url, error)
            self._trusted = False
            self._doubt.set()
            self._queue.give_back([pending])
        except QwenShotsError as error:
            pending.settle(error)
            self._doubt_after(pending.shot, error)
        except asyncio.CancelledError:
            self._queue.give_back([pending])
            raise
        except Exception:
            # Whatever went wrong, nobody may wait for ever.
            log.exception("unexpected error with a shot")
            pending.settle(ShotFailed("an error that nobody foresaw; the server's log has it"))
        else:
            self._streak.end()
            pending.settle(reading)
            self._queue.measured(1, pending.tokens, time.monotonic() - began)

    def _doubt_after(self, shot: ShotPictures, error: QwenShotsError) -> None:
        """Ask a question of ours where only errors come: an endpoint that fails at once would draw the whole queue."""
        self._streak.note([shot], [error])
        if self._streak.hopeless:
            self._streak.end()
            self._trusted = False
            self._doubt.set()

    async def _look(self, shot: ShotPictures) -> ShotReading:
        interview = await asyncio.to_thread(self._interview, shot)
        return await interview.hold()

    def _interview(self, shot: ShotPictures) -> Interview:
        """Takes some milliseconds a picture."""
        model, attributes = self._settings.model, self._settings.attributes
        conversation = Conversation(model.name, attributes, shot)
        return Interview(self.endpoint, conversation, list(attributes), len(shot.pictures), model.max_caption_tokens)


def _end(task: asyncio.Task[None], _: asyncio.Future[ShotReading]) -> None:
    task.cancel()
