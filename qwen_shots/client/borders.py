"""Borders between shots, and what a detector of them is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from qwen_shots.client.thumbnails import Thumbnail

# Fast cutting in trailers and fights goes down to about this; a shorter change is a flash or a blow.
MIN_SECONDS = 0.5
ROUNDING = 1e-3  # seconds: Matroska counts milliseconds

Transition: TypeAlias = Literal["cut", "dissolve", "fade"]


@dataclass(frozen=True, slots=True)
class Border:
    """Where one shot ends and the next begins.

    Attributes:
        frame: the number of the picture with which the next shot begins, from 0.
        time: seconds on the film's clock, when a player shows that picture; of the last border, when the film ends.
        transition: how the next shot begins; a dissolve or fade has its border in the middle.
    """

    frame: int
    time: float
    transition: Transition = "cut"


class Detector(Protocol):
    """Finds borders while a film is read, some pictures late."""

    @property
    def sure_until(self) -> float:
        """Seconds up to which all its borders have been found."""

    def look(self, picture: Thumbnail) -> Iterator[Border]:
        """Take in the next picture, and give the borders that are certain now, in order."""

    def finish(self) -> Iterator[Border]:
        """Give the rest, at the film's end."""
