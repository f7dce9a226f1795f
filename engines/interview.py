"""All questions of one shot, asked of one endpoint: the first alone, then the rest at the same time.

The first answer leaves instruction and pictures in the server's cache, so that each other question costs it no more
than its own words. Where two questions of the local engine come out of one forward pass, these are two requests:

    Picture 1, suspense:      the likeliest next tokens tell "0" from "1"
    Picture 1, suspense: 0.   the likeliest next tokens tell the first decimal
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from engines.base import ShotReading
from engines.chances import ONE_TOKEN, complete, only, read_top
from engines.conversation import Conversation
from engines.endpoint import Endpoint, Refused
from qwen_shots import prompt
from qwen_shots.errors import ShotFailed
from qwen_shots.scoring import DIGITS, Reading, read_score, read_scores

log = logging.getLogger(__name__)

WHOLES = DIGITS[:2]

# vLLM's words for a picture that it no longer remembers.
FORGOTTEN = "Cache miss"


class Interview:
    """One shot before one endpoint.

    Args:
        endpoint: who is asked.
        conversation: the shot.
        attributes: what is scored, in order.
        pictures: how many the shot has.
        max_caption_tokens: where a caption is cut.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        conversation: Conversation,
        attributes: Sequence[str],
        pictures: int,
        max_caption_tokens: int,
    ) -> None:
        self._endpoint = endpoint
        self._conversation = conversation
        self._attributes = attributes
        self._pictures = range(1, pictures + 1)
        self._max_caption_tokens = max_caption_tokens
        self._was_seen = False

    async def hold(self) -> ShotReading:
        """Ask everything.

        Raises:
            NoAnswer: the endpoint does not answer.
            ShotFailed: it will not answer for this shot, or not with numbers.
        """
        stems = [prompt.score_stem(picture, name) for name in self._attributes for picture in self._pictures]
        first = await self._chances(stems[0], WHOLES)
        self._was_seen = True
        caption, digits, wholes = await together(
            self._caption(),
            together(*(self._chances(stem + prompt.SCORE_TAIL, DIGITS) for stem in stems)),
            together(*(self._chances(stem, WHOLES) for stem in stems[1:])),
        )
        readings = iter(read_scores([first, *wholes], digits))
        return ShotReading(caption, {name: tuple(next(readings) for _ in self._pictures) for name in self._attributes})

    async def first_reading(self) -> Reading:
        """One score alone, to see that the endpoint answers as it should; raises as `hold`."""
        stem = prompt.score_stem(1, self._attributes[0])
        wholes = await self._chances(stem, WHOLES)
        return read_score(wholes, await self._chances(stem + prompt.SCORE_TAIL, DIGITS))

    async def _chances(self, begun: str, labels: str) -> list[float]:
        """Probabilities of the labels as the next token."""
        free = read_top(await self._ask(begun, ONE_TOKEN))
        if free.holds(labels):
            return free.of(labels)
        return complete(labels, free, read_top(await self._ask(begun, only(labels))))

    async def _caption(self) -> str:
        answer = await self._ask(prompt.CAPTION_CUE, {"max_tokens": self._max_caption_tokens})
        try:
            return prompt.caption_of(answer["choices"][0]["message"]["content"] or "")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise ShotFailed("the endpoint's answer holds no text") from None

    async def _ask(self, begun: str, options: Mapping[str, Any]) -> Any:
        """Name the pictures where the endpoint has seen them; send them where that does not do."""
        try:
            if self._was_seen and self._endpoint.knows_names:
                try:
                    return await self._endpoint.ask(self._conversation.body(begun, options, by_name=True))
                except Refused as error:
                    # An older vLLM knows no names, and any forgets: then they are sent, as everywhere.
                    self._endpoint.refuses_names |= FORGOTTEN not in error.said
            return await self._endpoint.ask(self._conversation.body(begun, options))
        except Refused as error:
            log.warning("%s refused a shot (%d): %s", self._endpoint.url, error.status, error.said)
            raise ShotFailed(f"the endpoint refused it with {error.status}; the server's log says more") from None


async def together(*work: Coroutine[Any, Any, Any]) -> list[Any]:
    """Await all at the same time. When one fails, the others are given up, and its error is raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
