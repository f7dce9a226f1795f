"""Qwen2-VL as the runner asks it: a batch of shots in, label chances and caption tokens out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from engines.backbone import BackboneOutput
from engines.base import ShotPictures
from engines.qwen2vl import fused
from engines.qwen2vl.captions import CaptionWriter
from engines.qwen2vl.decoder import DecoderBatch, TextDecoder
from engines.qwen2vl.graphs import Recorder
from engines.qwen2vl.layout import BatchLayout
from engines.qwen2vl.preparing import Prepared, Preparer
from engines.qwen2vl.recordings import Recorded, Recordings, Told
from engines.qwen2vl.spans import Spans
from engines.qwen2vl.tower import VisionTower

if TYPE_CHECKING:
    from torch import Tensor

    from engines.questions import Questions
    from model_loader import LoadedModel

# Rows whose logits over the whole vocabulary are held at once.
HEAD_ROWS = 1024


def serves(model: Any) -> bool:
    """Whether this forward pass is the model's: plain Qwen2-VL, whole on one device."""
    config = model.config
    if config.model_type != "qwen2_vl":
        return False
    text, vision = config.get_text_config(), config.vision_config
    devices = {weight.device for weight in model.parameters()}
    plain_rope = text.rope_parameters.get("rope_type") in ("default", "mrope")
    plain_acts = text.hidden_act == "silu" and vision.hidden_act == "quick_gelu"
    return len(devices) == 1 and plain_rope and plain_acts and not getattr(text, "use_sliding_window", False)


class Qwen2VL:
    """Implements `engines.backbone.Backbone`.

    Args:
        loaded: a model that `serves` says yes to.
        questions: what it is asked.
        most_tokens: where a caption is cut.
        stops: tokens that end a caption.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        questions: Questions,
        most_tokens: int,
        stops: Collection[int],
    ) -> None:
        self._questions = questions
        self._most_tokens = most_tokens
        words = loaded.model.get_input_embeddings().weight
        on_gpu = bool(words.is_cuda)
        self._preparer = Preparer(loaded.model, loaded.pictures, questions, max(1, most_tokens), pinned=on_gpu)
        self._tower = VisionTower(loaded.model.model.visual, loaded.pictures)
        self._decoder = TextDecoder(loaded.model)
        self._writer = CaptionWriter(self._decoder, most_tokens, stops)
        # In float32 attention asks the host for lengths (`attention`), which can't be recorded.
        self._recorder = Recorder() if on_gpu and words.dtype in fused.HALVES else None
        self._recordings = Recordings()
        self._longest = 0
        self._labels = torch.tensor([*questions.wholes, *questions.digits], device=self.device)
        self._instruction = self._read_instruction(self._preparer.instruction)

    def text_tokens(self, pictures: int) -> int:
        """As `Preparer.text_tokens`."""
        return self._preparer.text_tokens(pictures)

    def warm_up(self, tokens: int, longest: int) -> None:
        """Reserve and record what full batches would otherwise wait for."""
        self._longest = longest
        self._reserve(tokens)

    def _reserve(self, tokens: int) -> None:
        """Make the cache hold so many tokens. What is recorded reads it where it was, so that is forgotten first."""
        self._recordings.clear()
        self._writer.forget()
        try:
            self._decoder.reserve(tokens)
        finally:
            if self._recorder and self._longest and self._most_tokens > 1:
                self._writer.record(self._recorder, self._longest)

    def prepare(self, shots: Sequence[ShotPictures]) -> Prepared:
        """Everything that the host does for a batch."""
        return self._preparer.prepare(shots)

    @torch.inference_mode()
    def run(self, batch: Prepared, ask: Callable[[], None] | None = None) -> BackboneOutput:
        """Ask the model. Returns when the captions are written."""
        if batch.layout.places[-1] >= self._decoder.cache.shape[1]:
            self._reserve(int(batch.layout.places[-1]))
        half_read = _Mark(self.device)
        numbers, told = self._read_all(batch, half_read)
        chances = told.chances.to("cpu", non_blocking=True)
        if ask:
            half_read.wait()
            ask()
        tokens = self.write(numbers, told.first).to("cpu")
        whole = len(self._questions.wholes)
        return BackboneOutput(chances[:, 0, :whole], chances[:, 1, whole:], batch.layout.questions, tokens)

    def _read_all(self, batch: Prepared, half_read: _Mark) -> tuple[dict[str, Tensor], Told]:
        """All of a batch but its captions; and its numbers on the device."""
        recorded = self._find_recorded(batch)
        if recorded:
            told = recorded.replay(batch.pixels.bytes)
            half_read.set()  # a recording has no half; it takes as long as its captions, or less
            return recorded.numbers, told
        numbers = self.to_device(batch)
        pictures = self.see(batch, numbers, batch.pixels.bytes)
        return numbers, self.tell(batch, self.read(batch, numbers, pictures, half_read.set))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._decoder.device

    def to_device(self, batch: Prepared) -> dict[str, Tensor]:
        """The batch's numbers, by name."""
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.numbers.items()}

    def see(self, batch: Prepared, numbers: dict[str, Tensor], content: Tensor) -> Tensor:
        """Pictures to tokens, (tokens, width), in the sorted order of the batch's pixels."""
        return self._tower.look(content, batch.pixels.groups, numbers["patch_starts"], numbers["patch_grid"])

    def read(
        self,
        batch: Prepared,
        numbers: dict[str, Tensor],
        pictures: Tensor,
        halfway: Callable[[], None] | None = None,
    ) -> Tensor:
        """Hidden states that scores and captions begin from: two a question, then one a shot, of (..., width)."""
        x = self._decoder.embed(numbers["ids"])
        x.index_copy_(0, numbers["picture_at"][numbers["token_order"]], pictures)
        self._place_instruction(numbers["shared_at"])
        return self._decoder.read(decoder_batch(x, batch.layout, numbers), halfway)

    def tell(self, batch: Prepared, hidden: Tensor) -> Told:
        """The labels' chances, and each caption's first token."""
        shots = len(batch.layout.ends)
        chances = self._chances(hidden[:-shots]).view(-1, 2, len(self._labels))
        return Told(chances, self._decoder.logits(hidden[-shots:]).argmax(dim=-1))

    def write(self, numbers: dict[str, Tensor], first: Tensor) -> Tensor:
        """The captions' tokens, (shots, most tokens)."""
        starts, filled = (numbers[name].to(torch.int32) for name in ("places", "filled"))
        return self._writer.write(first, numbers["next_positions"], starts[:-1], filled)

    def _find_recorded(self, batch: Prepared) -> Recorded | None:
        recorder = self._recorder
        if recorder is None or len(batch.sizes) > 1:
            return None
        return self._recordings.find(batch.sizes[0], lambda: self._record(batch, recorder))

    def _record(self, batch: Prepared, recorder: Recorder) -> Recorded | None:
        numbers = self.to_device(batch)
        content = batch.pixels.bytes.to(self.device)
        told: list[Told] = []
        graph = recorder.record(
            lambda: told.append(self.tell(batch, self.read(batch, numbers, self.see(batch, numbers, content))))
        )
        return Recorded(numbers, content, told[-1], graph) if graph else None

    def _chances(self, hidden: Tensor) -> Tensor:
        """Of the labels, among the whole vocabulary: float32 (rows, labels)."""
        mass = torch.cat([self._decoder.log_mass(rows) for rows in hidden.split(HEAD_ROWS)])
        return torch.exp(self._decoder.exact_logits(hidden, self._labels) - mass[:, None])

    @torch.inference_mode()
    def _read_instruction(self, ids: Sequence[int]) -> Tensor:
        """Keys and values of what all conversations begin with, (layers, tokens, 2, key heads, width)."""
        device = self._decoder.device
        count = len(ids)
        self._decoder.reserve(count)
        places = torch.arange(count, device=device)
        span = Spans(torch.tensor([0, count], dtype=torch.int32, device=device), count)
        nothing = places[:0]
        self._decoder.read(
            DecoderBatch(
                x=self._decoder.embed(torch.tensor(ids, device=device)),
                positions=places.expand(3, -1),
                trunk_tokens=count,
                trunk_at=places,
                trunks=span,
                filled=span,
                seen=span,
                asked=span,
                twigs=span,
                keys=nothing,
                keyed=span,
                kept=places[-2:],
            )
        )
        read: Tensor = self._decoder.cache[:, :count].clone()
        return read

    def _place_instruction(self, at: Tensor) -> None:
        self._decoder.cache[:, at] = self._instruction[:, None]


class _Mark:
    """A place in the device's work that the host can wait for. Without a GPU it is done when it is asked for."""

    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event() if device.type == "cuda" else None

    def set(self) -> None:
        """Here."""
        if self._event:
            self._event.record()

    def wait(self) -> None:
        """Until the device has come by."""
        if self._event:
            self._event.synchronize()


def decoder_batch(x: Tensor, layout: BatchLayout, numbers: dict[str, Tensor]) -> DecoderBatch:
    """What the text side reads: a layout, its numbers on the device by name, and its tokens' vectors `x`."""
    places = numbers["places"].to(torch.int32)
    filled, seen = (numbers[name].to(torch.int32) for name in ("filled", "seen"))
    longest = int(layout.filled.max())
    return DecoderBatch(
        x=x,
        positions=numbers["positions"],
        trunk_tokens=layout.trunk_tokens,
        trunk_at=numbers["trunk_at"],
        trunks=_spans(numbers["trunk_starts"], layout.trunk_starts),
        filled=Spans(places, longest, filled),
        seen=Spans(places, longest, seen),
        asked=_spans(numbers["asked_starts"], layout.asked_starts),
        twigs=Spans(_cumulated(numbers["lengths"]), int(layout.lengths.max())),
        keys=numbers["keys"],
        keyed=Spans(_cumulated(numbers["key_lengths"]), int(layout.key_lengths.max())),
        kept=torch.cat([numbers["read"].flatten() + layout.trunk_tokens, numbers["ends"]]),
    )


def _spans(starts: Tensor, on_host: np.ndarray[Any, Any]) -> Spans:
    return Spans(starts.to(torch.int32), int(np.diff(on_host).max()))


def _cumulated(lengths: Tensor) -> Tensor:
    starts: Tensor = F.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    return starts
