"""What can go wrong between a film file and its analyses.

QwenShotsError
  + FilmError               the film file can't be used
  |   + NotAFilm            it can't be opened, or nothing in it is a moving picture that can be decoded
  |   + NoVideoStream       it holds sound or text alone
  |   + FilmCutShort        it ends before its own header says it does
  |   + FilmDamaged         more than a small share of its pictures can't be decoded
  |   + FilmEncrypted       it is encrypted, and the client has no keys
  + StoreError              the folder of answers can't be used
  |   + NoStore             it holds no answers that can be read
  |   + OtherFilm           it holds another film's answers
  |   + OtherModel          it holds another model's answers
  |   + StoreInUse          another process writes there
  |   + CannotStore         no space, no permission
  + ServerError             the server can't be used
      + Unreachable         no answer came
      + BadAnswer           an answer came that is not one of this server's
      + ModelChanged        another model answers than before
      + Problem             the server said no; carries its problem body
          + Unauthorized    401: the key
          + Refused         the other 4xx: the request
          + Busy            408, 429, 503: try again later
          |   + BadGateway  502, 504, 520 to 530: a proxy has no answer of the server behind it
          + ServerFailed    the other 5xx
"""

from __future__ import annotations

from qwen_shots.errors import QwenShotsError
from qwen_shots.schemas import Problem as ProblemBody


class FilmError(QwenShotsError):
    """The film file can't be used."""

    slug = "film"
    title = "The film can't be used"


class NotAFilm(FilmError):
    """It can't be opened, or nothing in it is a moving picture that can be decoded."""

    slug = "not-a-film"
    title = "The file is not a film"


class NoVideoStream(FilmError):
    """It holds sound or text alone."""

    slug = "no-video-stream"
    title = "The file has no picture"


class FilmCutShort(FilmError):
    """It ends before its own header says it does."""

    slug = "film-cut-short"
    title = "The film is cut short"


class FilmDamaged(FilmError):
    """More than a small share of its pictures can't be decoded."""

    slug = "film-damaged"
    title = "The film is damaged"


class FilmEncrypted(FilmError):
    """It is encrypted, and the client has no keys."""

    slug = "film-encrypted"
    title = "The film is encrypted"


class StoreError(QwenShotsError):
    """The folder of answers can't be used."""

    slug = "store"
    title = "The folder of answers can't be used"


class NoStore(StoreError):
    """It holds no answers that can be read."""

    slug = "no-store"
    title = "There are no answers"


class OtherFilm(StoreError):
    """It holds another film's answers, or those about other shots of this one."""

    slug = "other-film"
    title = "The folder holds another film's answers"


class OtherModel(StoreError):
    """It holds another model's answers: scores of the two can't be compared."""

    slug = "other-model"
    title = "The folder holds another model's answers"


class StoreInUse(StoreError):
    """Another process writes there."""

    slug = "store-in-use"
    title = "The folder is in use"


class CannotStore(StoreError):
    """No space, no permission, or a disk that fails."""

    slug = "cannot-store"
    title = "Answers can't be stored"


class ServerError(QwenShotsError):
    """The server can't be used."""

    slug = "server"
    title = "The server can't be used"


class Unreachable(ServerError):
    """No answer came."""

    slug = "unreachable"
    title = "The server can't be reached"


class BadAnswer(ServerError):
    """An answer came that is not one of this server's."""

    slug = "bad-answer"
    title = "The server's answer can't be read"


class ModelChanged(ServerError):
    """Another model answers than before: scores of the two can't be compared."""

    slug = "model-changed"
    title = "The server has changed its model"


class Problem(ServerError):
    """The server said no.

    Attributes:
        body: the problem body (RFC 9457) as it came.
        retry_after: seconds after which the server asks to be asked again; None where it did not say.
    """

    slug = "problem"
    title = "The server refused"

    def __init__(self, body: ProblemBody, retry_after: float | None = None) -> None:
        super().__init__(body.detail)
        self.body = body
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[type[Problem], tuple[ProblemBody, float | None]]:  # type: ignore[override]
        # Not the detail alone, which the base hands over.
        return type(self), (self.body, self.retry_after)


class Unauthorized(Problem):
    """401: the key is missing, wrong, or the public one from another machine."""

    slug = "unauthorized"
    title = "The server wants another key"


class Refused(Problem):
    """4xx: the request is not one that the server takes."""

    slug = "refused"
    title = "The server refused the request"


class Busy(Problem):
    """408, 429 or 503: loading, draining or full, or the request came in too slowly."""

    slug = "busy"
    title = "The server is busy"


class BadGateway(Busy):
    """502, 504 or 520 to 530: the server is away or too slow for a proxy in front of it. Try again later."""

    slug = "bad-gateway"
    title = "The server behind a proxy is away"


class ServerFailed(Problem):
    """5xx: the server could not do it."""

    slug = "server-failed"
    title = "The server failed"
