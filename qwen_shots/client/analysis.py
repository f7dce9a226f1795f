"""A whole film: its shots are found, looked at, listened to and sent at the same time, and each answer is stored.

Five stages, each in a thread of its own:

    find_borders -> stills_of -> features_of -> requests (several at a time) -> the store

Decoding, measuring and waiting for the server all happen outside of Python's lock, so the stages do run side by side.
Each is a bounded number of shots ahead of the next. Ctrl-C is raised in the main thread, so no answer is ever in that
one's hands, and the store waits for no lock of its.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise, tee
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from PIL import Image

from qwen_shots import schemas
from qwen_shots.active_picture import WORKING_SIDE, ActivePicture, active_picture
from qwen_shots.audio import classify
from qwen_shots.client.ahead import Ahead, Aside
from qwen_shots.client.api import Answer, ShotClient, as_error, key_of, same_model, server_of
from qwen_shots.client.describe import describe
from qwen_shots.client.errors import Busy, NoStore, OtherFilm, OtherModel, Refused, ServerError, ServerFailed
from qwen_shots.client.frames import Still, stills_of
from qwen_shots.client.shots import DEFAULT_DETECTOR, DETECTORS, find_borders
from qwen_shots.client.sound import features_of
from qwen_shots.client.store import THUMBNAIL_SIDE, ShotRecord, open_store
from qwen_shots.client.wire import wire_shot
from qwen_shots.client.writer import Answered, StoreWriter, write_store

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)

# A server that batches wants more than one request at a time, and the next one while it answers the last.
REQUESTS = 4
# Shots that wait for the next stage. One is about 0.4 MB: five frames and their base64.
WAITING = 16
# Found shots are a few numbers each: a film may be cut to its end while its first shots are looked at.
FOUND_WAITING = 100_000

THUMBNAIL_QUALITY = 80

# What is under way when somebody stops gets this long to be answered, and stored.
GRACE_SECONDS = 2.0

Seen: TypeAlias = tuple[ShotRecord, list[Still]]
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A shot that can be sent.

    Attributes:
        wire: as it is sent.
        audio_class: as `ShotRecord.audio_class`.
        thumbnail: a small JPEG.
        active_picture: what bars leave of its frames; None where it was not looked for.
    """

    wire: schemas.Shot
    audio_class: str | None
    thumbnail: bytes
    active_picture: ActivePicture | None = None


class Stopped(Exception):
    """Nobody wants the film read any farther."""


class FilmRun:
    """One film on its way into its folder. What is there already is not asked again.

    Args:
        film: the film file.
        client: the server.
        folder: where the answers are stored.
        detector: finds the shots; one of `shots.DETECTORS`. None for the one that the folder's shots were found by, and
            `shots.DEFAULT_DETECTOR` in a new folder.
        shots: given shots in order of time, in place of a detector.
        explain: whether answers bear their evidence.
        retry_failed: whether to try the shots that failed before, and only those.
        again: whether to ask about all shots anew; the answers of before go when the first new one comes.

    Raises:
        FilmError, StoreError: as `describe` and `write_store`.
    """

    def __init__(
        self,
        film: Path,
        client: ShotClient,
        folder: Path,
        *,
        detector: str | None = None,
        shots: Sequence[ShotRecord] | None = None,
        explain: bool = False,
        retry_failed: bool = False,
        again: bool = False,
    ) -> None:
        self._path = film
        self._client = client
        self._detector = detector or _detector_of(folder)
        self._explain = explain
        self.store: StoreWriter = write_store(folder, describe(film, _cut_by(self._detector, shots)))
        if shots is not None and not self.store.complete:
            self.store.add_shots(shots)
            # Not every header tells a length.
            self.store.set_complete(max([self.store.film.duration, *(shot.end for shot in shots)]))
        self._known = {shot.number: shot for shot in self.store.shots()}
        self._only_failed = retry_failed
        self.again = again
        self._model_is_agreed = False
        self._expected = sum(self._is_wanted(shot) for shot in self._known.values())
        self._seconds_found = 0.0
        self._stages: list[Ahead[Any]] = []
        self._storing: Aside[list[int]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def expected(self) -> int:
        """How many shots this run is about, as far as they are known."""
        return self._expected

    @property
    def share_known(self) -> float:
        """How much of the film, 0..1, `expected` speaks of."""
        if self.store.complete or self._only_failed:
            return 1.0
        return min(1.0, self._seconds_found / max(self.store.film.duration, 1e-9))

    def answers(self) -> Iterator[list[int]]:
        """Analyse what is missing.

        Returns:
            The numbers of the shots whose answers were just stored, some at a time, in no sure order.

        Raises:
            FilmError: the film can't be read on; what came before is stored.
            ServerError: the server can't be used; what came before is stored.
            StoreError: an answer can't be stored, or is another model's than those of before.
        """
        if self._expected or not self.store.complete:
            self._meet_server()
        found = self._stage([self._wanted()], FOUND_WAITING)
        seen = self._stage([self._seen(found)], WAITING)
        prepared = self._stage([self._heard(seen)], WAITING)
        answers = self._stage([self._asked(prepared) for _ in range(REQUESTS)], REQUESTS)
        self._storing = Aside(self._stored(answers))  # ends after the others
        yield from self._storing

    def stop(self) -> None:
        """Let `answers` end after what is under way."""
        for stage in self._stages:
            stage.close()

    def close(self) -> None:
        """Stop. What is under way gets GRACE_SECONDS to be answered, and is stored."""
        self.stop()
        try:
            if self._storing:
                self._storing.join()
            for stage in self._stages[:3]:  # the requests may wait for a dead server
                stage.join()
        finally:
            self.store.close()

    # --- the model that answers ---------------------------------------------------------------------------------------

    def _meet_server(self) -> None:
        """See that there is a server, and not with another model, before the film is read."""
        with suppress(Busy, ServerFailed):  # the requests will wait for it, or say what is wrong
            self._client.health()
        if self._client.model and not self.again:
            self._refuse_other_model()

    def _refuse_other_model(self) -> None:
        ours, theirs = self.store.film.model, self._client.model
        if ours and not same_model(ours, theirs):
            raise OtherModel(
                f"these answers are of the model {ours}, and the server runs {theirs or 'one that it does not name'}: "
                "their scores can't be compared"
            )

    def _agree_on_model(self) -> None:
        """Before the first answer is stored. The model of answers that came without a name stays unknown."""
        theirs = self._client.model
        if self.again:
            self.store.begin_again(theirs)
        elif self.store.film.model:
            self._refuse_other_model()
        elif any(shot.attempts for shot in self._known.values()):
            log.warning("%s holds answers of a model that is not known; those of now may be another's", self._path.name)
        elif theirs:
            self.store.set_model(theirs)
        self._model_is_agreed = True

    # --- the stages --------------------------------------------------------------------------------------------------

    def _wanted(self) -> Iterator[ShotRecord]:
        """The shots to be sent, in order of time."""
        if self.store.complete or self._only_failed:
            yield from (shot for shot in self._known.values() if self._is_wanted(shot))
            return
        for shot in self._found():
            if self._is_wanted(shot):
                yield shot

    def _is_wanted(self, shot: ShotRecord) -> bool:
        return shot.failed if self._only_failed else self.again or not shot.attempts

    def _found(self) -> Iterator[ShotRecord]:
        """All shots of the film, found and stored one by one; the known ones as they are known."""
        end = 0.0
        borders = find_borders(self._path, self._detector, self._go_on)
        for number, (here, there) in enumerate(pairwise(borders), start=1):
            begins = here.transition if number > 1 else None
            shot = ShotRecord(number, here.time, there.time, here.frame, there.frame, transition=begins)
            if (known := self._known.get(number)) is None:
                self.store.add_shots([shot])
            elif (known.first_frame, known.end_frame) != (shot.first_frame, shot.end_frame):
                raise OtherFilm("the film's shots are found elsewhere than before; begin anew in another folder")
            self._expected += known is None
            self._seconds_found = end = shot.end
            yield known or shot
        self.store.set_complete(end)

    def _seen(self, shots: Iterable[ShotRecord]) -> Iterator[Seen]:
        ours, theirs = tee(shots)
        yield from zip(ours, stills_of(self._path, theirs, self._go_on), strict=True)

    def _heard(self, seen: Iterable[Seen]) -> Iterator[Prepared]:
        ours, theirs = tee(seen)
        for (shot, stills), features in zip(ours, features_of(self._path, (shot for shot, _ in theirs)), strict=True):
            sound = classify(features) if features else None
            wire = wire_shot(shot.number, shot, stills, features)
            yield Prepared(wire, sound.audio_class if sound else None, _thumbnail(stills), _active_picture(stills))

    def _asked(self, prepared: Ahead[Prepared]) -> Iterator[list[Answered]]:
        """What is ready goes at once: a full batch when the server is the slower one, else a small one."""
        while batch := prepared.take(self._client.batch_size):
            waiting = {each.wire.shot_id: each for each in batch}
            try:
                for found in self._client.answers_to([each.wire for each in batch], explain=self._explain):
                    yield [_answered(waiting.pop(shot.shot_id), answer) for shot, answer in found]
            except (Refused, ServerFailed) as problem:
                yield [_answered(each, as_error(each.wire, problem)) for each in waiting.values()]
            except ServerError:
                prepared.close()  # the others need not try
                raise

    def _stored(self, batches: Ahead[list[Answered]]) -> Iterator[list[int]]:
        """Stores what comes, all that waits in one transaction; the numbers of its shots."""
        while some := batches.take(REQUESTS):
            yield self._store(some)
        for late in batches.rest(GRACE_SECONDS):  # somebody stopped, and may lose patience: each at once
            yield self._store([late])

    def _store(self, batches: Iterable[list[Answered]]) -> list[int]:
        if not self._model_is_agreed:
            self._agree_on_model()
        answers = [answer for batch in batches for answer in batch]
        self.store.add_answers(answers)
        return [answer.number for answer in answers]

    def _go_on(self, _: float) -> None:
        if any(stage.closed for stage in self._stages):
            raise Stopped

    def _stage(self, sources: Sequence[Iterable[Item]], limit: int) -> Ahead[Item]:
        stage = Ahead(sources, limit)
        self._stages.append(stage)
        return stage


def _detector_of(folder: Path) -> str:
    """Which detector a folder's shots were found by: an earlier version had another default."""
    with suppress(NoStore), open_store(folder) as known:
        if known.film.cut_by in DETECTORS:
            return known.film.cut_by
    return DEFAULT_DETECTOR


def _cut_by(detector: str, shots: Sequence[ShotRecord] | None) -> str:
    if shots is None:
        return detector
    told = repr([(shot.first_frame, shot.end_frame, shot.name) for shot in shots])
    return f"the shot list {hashlib.sha256(told.encode()).hexdigest()[:12]}"


def _active_picture(stills: Sequence[Still]) -> ActivePicture:
    frames = [Image.open(io.BytesIO(still.jpeg)) for still in stills]
    for frame in frames:
        frame.draft("L", (WORKING_SIDE, WORKING_SIDE))  # decodes no more than that needs
    return active_picture(frames)


def _thumbnail(stills: Sequence[Still]) -> bytes:
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(stills[len(stills) // 2].jpeg)) as image:
        image.draft("RGB", (THUMBNAIL_SIDE, THUMBNAIL_SIDE))  # decodes no more than that needs
        image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
        image.save(buffer, "JPEG", quality=THUMBNAIL_QUALITY)
    return buffer.getvalue()


def _answered(shot: Prepared, answer: Answer) -> Answered:
    return Answered(int(shot.wire.shot_id), answer, shot.audio_class, shot.thumbnail, shot.active_picture)


# --- in Python -------------------------------------------------------------------------------------------------------


def analyze(
    film: Path | str,
    server: ShotClient | str | None = None,
    *,
    key: str | None = None,
    folder: Path | str | None = None,
    detector: str | None = None,
    shots: Sequence[ShotRecord] | None = None,
    explain: bool = False,
    again: bool = False,
) -> Generator[ShotRecord, None, None]:
    """Analyse a film.

    Args:
        film: the film file.
        server: a client, or the server's address; None for $QWEN_SHOTS_SERVER, else a server of this machine.
        key: the server's key, with an address; None for $QWEN_SHOTS_KEY.
        folder: keeps the answers, so that the same call goes on where it stopped; None for no traces.
        detector: finds the shots; one of `shots.DETECTORS`. None for the one that the folder's shots were found by, and
            `shots.DEFAULT_DETECTOR` in a new folder.
        shots: given shots in order of time, in place of a detector.
        explain: whether answers bear their evidence.
        again: whether to ask about all shots anew, also those that the folder knows.

    Returns:
        All shots in order of time, each as soon as it is answered and those before it are. A shot that failed is there
        too: see its `error`.

    Raises:
        FilmError, StoreError, ServerError: what stops the work. A folder keeps what came before.
    """
    with ExitStack() as stack:
        run = _opened(stack, film, server, key, folder, detector=detector, shots=shots, explain=explain, again=again)
        yield from _in_order(run)


async def analyze_async(
    film: Path | str,
    server: ShotClient | str | None = None,
    *,
    key: str | None = None,
    folder: Path | str | None = None,
    detector: str | None = None,
    shots: Sequence[ShotRecord] | None = None,
    explain: bool = False,
    again: bool = False,
) -> AsyncGenerator[ShotRecord, None]:
    """Analyse a film as `analyze` does, without ever holding up the event loop. It may be cancelled at any time."""
    run = None
    with ExitStack() as stack:
        asked = {"detector": detector, "shots": shots, "explain": explain, "again": again}
        opened = partial(_opened, stack, film, server, key, folder, **asked)
        opening = asyncio.ensure_future(asyncio.to_thread(opened))
        under_way: asyncio.Future[Any] = opening
        try:
            run = await asyncio.shield(opening)
            answered = _in_order(run)
            while True:
                under_way = asyncio.ensure_future(asyncio.to_thread(next, answered, None))
                if (shot := await asyncio.shield(under_way)) is None:
                    return
                yield shot
        finally:
            if run:
                run.stop()
            await asyncio.wait([under_way])
            await asyncio.to_thread(stack.close)


def _opened(
    stack: ExitStack,
    film: Path | str,
    server: ShotClient | str | None,
    key: str | None,
    folder: Path | str | None,
    **asked: Any,
) -> FilmRun:
    if isinstance(server, ShotClient):
        client = server
    else:
        client = stack.enter_context(ShotClient(server_of(server), key_of(key)))
    kept = Path(folder or stack.enter_context(TemporaryDirectory()))
    return stack.enter_context(FilmRun(Path(film), client, kept, **asked))


def _in_order(run: FilmRun) -> Iterator[ShotRecord]:
    number = 1
    for _ in chain([] if run.again else [[]], run.answers()):  # first of all what was answered before
        while (shot := run.store.shot(number)) is not None and shot.attempts:
            yield shot
            number += 1
