"""What the CPU makes of a shot: no larger than needed, and measured as at the full size."""

from __future__ import annotations

import asyncio
import base64
import io
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

import av
import numpy as np
import pytest
from PIL import Image

from analyzer import Decoded, ShotAnalyzer, decode, measure_frames
from engines.base import ShotPictures, ShotReading
from qwen_shots.errors import InvalidPicture, NotANumber
from qwen_shots.media import Frame, Picture, PictureFit, decode_frame
from qwen_shots.schemas import Measured, Shot
from settings import ProcessingSettings, load_settings
from tests import helpers
from tests.fakes import FakeEngine

FILM = helpers.ROOT / "samples" / "big-buck-bunny-30s.mp4"
FIT = PictureFit(factor=28, max_tokens=256)
SHOTS, FRAMES, STEP = 10, 5, 12


@pytest.fixture(scope="module")
def shots() -> list[Shot]:
    """Shots of a real film at 720p, as JPEG."""
    with av.open(str(FILM)) as file:
        wanted = [
            np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
            for number, frame in enumerate(file.decode(video=0))
            if not number % STEP
        ]
    starts = np.linspace(0, len(wanted) - FRAMES, SHOTS).astype(int)
    return [
        Shot.model_validate(helpers.shot(images=[as_720p(frame) for frame in wanted[start : start + FRAMES]]))
        for start in starts
    ]


def as_720p(frame: Picture) -> str:
    file = io.BytesIO()
    Image.fromarray(frame).resize((1280, 720), Image.Resampling.LANCZOS).save(file, "JPEG", quality=90)
    return base64.b64encode(file.getvalue()).decode()


def test_key_frames_have_the_size_at_which_they_are_seen(shots: Sequence[Shot]) -> None:
    decoded = decode(shots[0], FIT)
    assert [picture.shape for picture in decoded.key_frames] == [(336, 588, 3)] * 3
    assert all(picture.dtype == np.uint8 and picture.flags.c_contiguous for picture in decoded.key_frames)
    assert [picture.shape for picture in decode(shots[0], None).key_frames] == [(720, 1280, 3)] * 3


def test_a_reduced_scale_hardly_changes_what_is_seen(shots: Sequence[Shot]) -> None:
    off = []
    for shot in shots:
        for index, seen in zip((0, 2, 4), decode(shot, FIT).key_frames, strict=True):
            whole = FIT.picture(decode_frame(shot.images[index], "images"))
            off.append(np.abs(seen.astype(int) - whole))
    assert np.mean(off) <= 0.5  # of 255
    assert max(one.mean() for one in off) <= 1
    assert max(np.percentile(one, 99.9) for one in off) <= 10


def test_measurements_stay_what_they_are_at_full_size(shots: Sequence[Shot]) -> None:
    whole, reduced = ([measure_frames(decode(shot, fit).frames) for shot in shots] for fit in (None, FIT))
    motion, darkness, luminance = (
        np.array([[getattr(one, name) for one in both] for both in (whole, reduced)])
        for name in ("motion", "darkness", "luminance")
    )
    assert np.ptp(motion[0]) > 0.2, "the shots must differ"
    assert np.abs(motion[0] - motion[1]).max() <= 0.02
    assert np.abs(motion[0] - motion[1]).mean() <= 0.003
    assert np.abs(darkness[0] - darkness[1]).max() <= 0.002
    assert np.abs(luminance[0] - luminance[1]).max() <= 0.002


def test_side_by_side_is_the_same_as_one_after_another(shots: Sequence[Shot]) -> None:
    with ThreadPoolExecutor(3) as pool:
        together, alone = decode(shots[1], FIT, pool.map), decode(shots[1], FIT)
    assert measure_frames(together.frames) == measure_frames(alone.frames)
    assert all((one == other).all() for one, other in zip(together.key_frames, alone.key_frames, strict=True))


def test_the_first_broken_frame_is_named(shots: Sequence[Shot]) -> None:
    images = list(shots[0].images)
    images[1], images[3] = images[1][:4000], "AAAA"
    with ThreadPoolExecutor(5) as pool, pytest.raises(InvalidPicture, match=r"^images\[1\] is damaged"):
        decode(shots[0].model_copy(update={"images": images}), FIT, pool.map)


@pytest.mark.parametrize("cores", [1, 3])
def test_shots_are_decoded_on_the_cores_that_may_be_used(
    shots: Sequence[Shot], monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr("analyzer.usable_cores", lambda: cores)
    threads: set[str] = set()

    def on_a_thread(*_: object) -> Decoded:
        threads.add(threading.current_thread().name)
        time.sleep(0.05)  # so that the next shot needs another thread
        return Decoded((Frame(Image.new("RGB", (28, 28)), (28, 28)),) * 5, (np.zeros((28, 28, 3), np.uint8),) * 3)

    monkeypatch.setattr("analyzer.decode", on_a_thread)

    async def analyze_all() -> None:
        analyzer = ShotAnalyzer(FakeEngine(list(load_settings(environ={}).attributes)), ProcessingSettings())
        await asyncio.gather(*(analyzer.analyze(shots[0]) for _ in range(6)))
        analyzer.close()

    asyncio.run(analyze_all())
    assert len(threads) == cores


def test_frames_are_measured_while_the_engine_looks(shots: Sequence[Shot], monkeypatch: pytest.MonkeyPatch) -> None:
    looking, measured = threading.Event(), threading.Event()

    class Engine(FakeEngine):
        """Answers once the frames are measured."""

        async def look(self, shot: ShotPictures) -> ShotReading:
            looking.set()
            assert await asyncio.to_thread(measured.wait, helpers.PATIENCE_SECONDS)
            return await super().look(shot)

    def measure_once_it_looks(frames: Sequence[Frame]) -> Measured:
        assert looking.wait(helpers.PATIENCE_SECONDS)
        measured.set()
        return measure_frames(frames)

    monkeypatch.setattr("analyzer.measure_frames", measure_once_it_looks)
    engine = Engine(list(load_settings(environ={}).attributes))
    analyzer = ShotAnalyzer(engine, ProcessingSettings())
    analysis = asyncio.run(analyzer.analyze(shots[0], explain=True))
    analyzer.close()
    assert analysis.evidence is not None
    assert analysis.evidence.measured == measure_frames(decode(shots[0], engine.fit).frames)


def test_while_a_shot_waits_its_pictures_are_the_engines_alone(shots: Sequence[Shot]) -> None:
    """An engine keeps them in another place; two of each would double what waiting takes."""

    class Engine(FakeEngine):
        """Lets go of the pictures that it was given, and says which of them live on."""

        async def look(self, shot: ShotPictures) -> ShotReading:
            given = [weakref.ref(picture) for picture in shot.pictures]
            count = len(given)
            del shot
            end = time.monotonic() + helpers.PATIENCE_SECONDS
            while any(each() is not None for each in given) and time.monotonic() < end:
                await asyncio.sleep(0.01)  # the thread that made them lets go of them in its own time
            alive.extend(each for each in given if each() is not None)
            return await super().look(ShotPictures((np.zeros((28, 28, 3), np.uint8),) * count))

    alive: list[weakref.ref[Picture]] = []
    attributes = load_settings(environ={}).attributes
    analyzer = ShotAnalyzer(Engine(list(attributes)), load_settings(environ={}).processing)
    asyncio.run(analyzer.analyze(shots[0]))
    analyzer.close()
    assert alive == []


@pytest.mark.parametrize(
    ("mass", "least", "good"), [(0.09, 0.1, False), (0.11, 0.1, True), (0.09, 0.0, True), (1, 1, True)]
)
def test_a_shot_that_is_not_answered_with_numbers_is_an_error(
    shots: Sequence[Shot], mass: float, least: float, good: bool
) -> None:
    class Unsure(FakeEngine):
        async def look(self, shot: ShotPictures) -> ShotReading:
            answer = await super().look(shot)
            few = {name: tuple(replace(r, mass=mass) for r in each) for name, each in answer.readings.items()}
            return replace(answer, readings=few)

    analyzer = ShotAnalyzer(Unsure(["suspense"]), ProcessingSettings(least_mass=least))
    with nullcontext() if good else pytest.raises(NotANumber, match="least_mass"):
        asyncio.run(analyzer.analyze(shots[0]))
    analyzer.close()
