"""Everything that can go wrong, as one tree with no HTTP in it.

QwenShotsError
  + InvalidInput            the caller can mend it
  |   + InvalidShot         a field of a shot is missing, of the wrong type or out of range
  |   + InvalidPicture      a frame is not a picture, or not one that is served
  |   + InvalidSettings     the configuration is wrong
  + CannotLoad              the model is not there, can't be fetched or can't be used
  |   + NotServed           it is of a family or a format that is not served
  + ShotFailed              this shot could not be scored, others can
  |   + NotANumber          the model's answer was no number, or hardly one
  + Unavailable             nothing is wrong with the input: try again later
      + EngineLoading       the model is still being loaded
      + EngineLost          the engine died while it held the shot
      + OutOfMemory         the GPU had no room for the shot
      + QueueFull           more work is waiting than the queue holds
      + TooSlow             no answer within the time that a request may take
      + Draining            the server is being stopped

Every error carries a `detail` for people: it names the field and the limit, and never repeats what was sent.
`title` is the same for every error of a class; `slug` names the class on the wire.
"""

from __future__ import annotations

from typing import ClassVar


class QwenShotsError(Exception):
    """Base of all errors of this project."""

    slug: ClassVar[str] = "error"
    title: ClassVar[str] = "Something went wrong"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def __reduce__(self) -> tuple[type[QwenShotsError], tuple[str] | tuple[str, int]]:
        # Errors cross the border between the engine's process and the server's.
        return type(self), (self.detail,)


class InvalidInput(QwenShotsError):
    """The caller can mend it."""

    slug = "invalid-input"
    title = "The request is not valid"


class InvalidShot(InvalidInput):
    """A field of a shot is missing, of the wrong type or out of range."""

    slug = "invalid-shot"
    title = "The shot is not valid"


class InvalidPicture(InvalidInput):
    """A frame is not a picture, or not one that is served."""

    slug = "invalid-picture"
    title = "A frame is not a picture that can be read"


class InvalidSettings(InvalidInput):
    """The configuration is wrong."""

    slug = "invalid-settings"
    title = "The configuration is not valid"


class CannotLoad(QwenShotsError):
    """The model is not there, can't be fetched or can't be used."""

    slug = "cannot-load"
    title = "The model can't be loaded"


class NotServed(CannotLoad):
    """The model is of a family or a format that is not served."""


class ShotFailed(QwenShotsError):
    """This shot could not be scored; others can."""

    slug = "shot-failed"
    title = "The shot could not be analysed"


class NotANumber(ShotFailed):
    """The model's answer held NaN or infinity, or hardly any numbers, so there is no score to give."""

    slug = "not-a-number"
    title = "The model gave no number for the shot"


class Unavailable(QwenShotsError):
    """Nothing is wrong with the input; try again in `retry_after` seconds."""

    slug = "unavailable"
    title = "The server can't analyse shots right now"

    def __init__(self, detail: str, retry_after: int = 5) -> None:
        super().__init__(detail)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[QwenShotsError], tuple[str, int]]:
        return type(self), (self.detail, self.retry_after)


class EngineLoading(Unavailable):
    """The model is still being loaded."""

    slug = "loading"
    title = "The model is still being loaded"


class EngineLost(Unavailable):
    """The engine died while it held the shot."""

    slug = "engine-lost"
    title = "The engine stopped while it held the shot"


class OutOfMemory(Unavailable):
    """The GPU had no room for the shot, though it was looked at alone."""

    slug = "out-of-memory"
    title = "There was not enough GPU memory for the shot"


class QueueFull(Unavailable):
    """More work is waiting than the queue holds."""

    slug = "queue-full"
    title = "The server is busy"


class TooSlow(Unavailable):
    """No answer came within the time that a request may take."""

    slug = "timeout"
    title = "The shot took too long"


class Draining(Unavailable):
    """The server is being stopped."""

    slug = "draining"
    title = "The server is being stopped"
