"""When a shot's reading is recorded as a CUDA graph, and that a recording keeps what it reads; no GPU is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import model_loader
from engines.base import ShotPictures
from engines.qwen2vl.backbone import Qwen2VL
from engines.qwen2vl.captions import CaptionWriter
from engines.qwen2vl.preparing import Sizes
from engines.qwen2vl.recordings import MOST_FAILED, MOST_RECORDED, Recorded, Recordings
from engines.runner import ModelRunner
from settings import Settings
from tests.helpers import scene

SIZES: list[Sizes] = [((28 * side, 28),) for side in range(1, 8)]


def nothing() -> Recorded:
    return Recorded({}, torch.empty(0), None, None)  # type: ignore[arg-type]


def test_a_shot_is_recorded_when_its_sizes_come_again() -> None:
    made: list[Recorded] = []

    def make() -> Recorded:
        made.append(nothing())
        return made[-1]

    recordings = Recordings()
    assert recordings.find(SIZES[0], make) is None
    assert recordings.find(SIZES[0], make) is made[0]
    assert recordings.find(SIZES[0], make) is made[0]
    for sizes in SIZES[1:6]:
        recordings.find(sizes, make)
        recordings.find(sizes, make)
    assert len(recordings) == MOST_RECORDED
    assert recordings.find(SIZES[0], make) is made[-1], "the oldest gave way, and is made again"
    recordings.clear()
    assert len(recordings) == 0
    assert recordings.find(SIZES[0], make) is None


def test_more_sizes_in_turn_than_are_kept_are_not_recorded_for_ever() -> None:
    made: list[Sizes] = []
    recordings = Recordings()

    def make(sizes: Sizes) -> Recorded:
        made.append(sizes)
        return nothing()

    for _ in range(100):
        for sizes in SIZES[: MOST_RECORDED + 1]:
            recordings.find(sizes, partial(make, sizes))
    assert max(map(made.count, made)) <= 6, "at the meetings 2, 4, 8, 16, 32 and 64"


def test_what_can_not_be_recorded_is_not_tried_for_ever() -> None:
    tried: list[Sizes] = []
    recordings = Recordings()
    for sizes in SIZES:
        for _ in range(100):
            assert recordings.find(sizes, partial(tried.append, sizes)) is None
    assert tried == SIZES[:MOST_FAILED]


@pytest.fixture(scope="module")
def backbone(settings: Settings) -> Qwen2VL:
    folder = model_loader.find_files(settings.model.name)
    loaded = model_loader.load(settings.model, folder, model_loader.make_plan(settings.model, folder))
    backbone = ModelRunner(loaded, settings.attributes, settings.model.max_caption_tokens).backbone
    assert isinstance(backbone, Qwen2VL)
    return backbone


class Reads(TorchDispatchMode):
    """Notes the storages that operations read and did not make."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.foreign: dict[int, torch.Tensor] = {}
        self._made: dict[int, torch.Tensor] = {}  # kept, so that no address is used twice

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        # What `torch.tensor` makes out of a list comes by here, as plain attention on a CPU has it.
        is_new = func is torch.ops.aten.lift_fresh.default
        for tensor in [] if is_new else tensors_in((args, kwargs)):
            if address(tensor) not in self._made:
                self.foreign[address(tensor)] = tensor
        for tensor in tensors_in(answer):
            if address(tensor) not in self.foreign:
                self._made[address(tensor)] = tensor
        return answer


class FakeRecorder:
    """In the place of `Recorder`: runs the work twice, as it does, and notes what the second run reads."""

    def __init__(self) -> None:
        self.reads: list[Reads] = []

    def record(self, work: Callable[[], object]) -> str:
        work()
        with Reads() as reads:
            work()
        self.reads.append(reads)
        return "graph"


def tensors_in(tree: object) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def held(thing: object) -> Iterator[torch.Tensor]:
    """The tensors that an object holds for as long as it lives: in its attributes, and in nothing that evicts."""
    if isinstance(thing, torch.Tensor):
        yield thing
    elif isinstance(thing, torch.nn.Module):
        yield from (*thing.parameters(), *thing.buffers())
    elif isinstance(thing, dict):
        yield from held(list(thing.values()))
    elif isinstance(thing, (list, tuple)):
        for each in thing:
            yield from held(each)
    elif is_dataclass(thing):
        yield from held([getattr(thing, field.name) for field in fields(thing)])
    elif type(thing).__module__.startswith("engines."):
        yield from held(vars(thing))


@torch.inference_mode()
def test_a_recording_keeps_every_tensor_that_it_reads(backbone: Qwen2VL) -> None:
    recorder = FakeRecorder()
    shot = ShotPictures(tuple(scene(number, 28 * (2 + number), 112) for number in range(3)))
    backbone.run(backbone.prepare([shot]))
    recorded = backbone._record(backbone.prepare([shot]), recorder)  # type: ignore[arg-type]
    (reads,) = recorder.reads
    mine = set(map(address, held([recorded, backbone._tower, backbone._decoder, backbone._labels])))
    mine.add(address(backbone._instruction))
    assert len(reads.foreign) > 50, "the weights at least"
    lost = [tensor.shape for place, tensor in reads.foreign.items() if place not in mine]
    assert lost == []


@torch.inference_mode()
def test_a_recorded_step_of_a_caption_keeps_every_tensor_that_it_reads(backbone: Qwen2VL) -> None:
    recorder, writer = FakeRecorder(), CaptionWriter(backbone._decoder, 8, {1, 2})
    writer.record(recorder, 100)  # type: ignore[arg-type]
    mine = set(map(address, held([writer, backbone._decoder])))
    assert len(recorder.reads) > 1
    for reads in recorder.reads:
        lost = [tensor.shape for place, tensor in reads.foreign.items() if place not in mine]
        assert lost == []


def test_where_a_step_can_not_be_recorded_none_is(backbone: Qwen2VL) -> None:
    class Fails:
        left = 2

        def record(self, work: Callable[[], object]) -> str | None:
            self.left -= 1
            return "graph" if self.left else None

    writer = CaptionWriter(backbone._decoder, 8, {1, 2})
    writer.record(Fails(), 100)  # type: ignore[arg-type]
    assert writer._graphs == {}


def test_nothing_recorded_outlives_the_cache_that_it_reads(backbone: Qwen2VL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one that could not grow: its memory was given back before."""
    backbone._recordings._kept[SIZES[0]] = nothing()
    backbone._writer._graphs[1] = None, None  # type: ignore[assignment]
    places = backbone._decoder.cache.shape[1]
    words = backbone._decoder._words
    with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
        patch.setattr(backbone._decoder, "_words", _Full(words, places))
        backbone._reserve(places + 1)
    assert len(backbone._recordings) == 0
    assert backbone._writer._graphs == {}
    assert backbone._decoder.cache.shape[1] == places
    backbone._reserve(places + 1)
    assert backbone._decoder.cache.shape[1] == places + 2


class _Full:
    """In the place of the words: makes no tensor of more than so many places."""

    def __init__(self, words: torch.Tensor, places: int) -> None:
        self._words = words
        self._places = places

    def new_zeros(self, layers: int, places: int, *rest: int) -> torch.Tensor:
        if places > self._places:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self._words.new_zeros(layers, places, *rest)
