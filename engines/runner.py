"""One model, one batch at a time: look, score, caption.

The forward passes are a backbone's (`engines.backbone`); here its numbers become readings and sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from engines.backbone import Backbone, BackboneOutput
from engines.base import ShotPictures, ShotReading
from engines.questions import Questions
from engines.qwen2vl.backbone import Qwen2VL, serves
from engines.stock import Stock
from qwen_shots.errors import NotANumber
from qwen_shots.prompt import caption_of
from qwen_shots.scoring import Reading, read_scores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from model_loader import LoadedModel


@dataclass(frozen=True, slots=True)
class Batch:
    """Shots to look at together, and what the backbone made of them."""

    shots: tuple[ShotPictures, ...]
    prepared: Any


class ModelRunner:
    """Asks one loaded model.

    A batch passes three stations, each of which may work on another batch meanwhile: `prepare` on the host, `run` on
    the device, `finish` on the host again. `look` is all three.

    Args:
        loaded: model, tokenizer and picture format.
        attributes: name to description, in the order in which they are asked.
        max_caption_tokens: where a caption is cut.
    """

    def __init__(self, loaded: LoadedModel, attributes: Mapping[str, str], max_caption_tokens: int) -> None:
        self._tokenizer = loaded.tokenizer
        self._attributes = list(attributes)
        self._questions = Questions(loaded.tokenizer, loaded.model.config.image_token_id, attributes)
        self._stops = _stop_tokens(loaded.model, loaded.tokenizer)
        if serves(loaded.model):
            self.backbone: Backbone = Qwen2VL(loaded, self._questions, max_caption_tokens, self._stops)
        else:
            self.backbone = Stock(loaded, self._questions, max_caption_tokens, self._stops)

    @property
    def ragged(self) -> bool:
        """Whether a batch holds no padding, so that its tokens say what it costs."""
        return isinstance(self.backbone, Qwen2VL)

    def look(self, shots: Sequence[ShotPictures]) -> list[ShotReading | NotANumber]:
        """Caption and score shots together. An answer does not depend on the batch that it was asked in.

        Returns:
            One answer a shot, in order; NotANumber where the model's numbers were none.
        """
        batch = self.prepare(shots)
        return self.finish(batch, self.run(batch))

    def prepare(self, shots: Sequence[ShotPictures]) -> Batch:
        """What the host does before."""
        return Batch(tuple(shots), self.backbone.prepare(shots))

    def run(self, batch: Batch, ask: Callable[[], None] | None = None) -> BackboneOutput:
        """What the device does; see `Backbone.run`."""
        return self.backbone.run(batch.prepared, ask)

    def finish(self, batch: Batch, ran: BackboneOutput) -> list[ShotReading | NotANumber]:
        """What the host does after it; returns as `look`."""
        readings = _split(ran)
        captions = map(self._to_text, ran.tokens.tolist())
        return list(map(self._answer, batch.shots, captions, readings))

    def _to_text(self, tokens: list[int]) -> str:
        written = list(takewhile(lambda token: token not in self._stops, tokens))
        return caption_of(self._tokenizer.decode(written, skip_special_tokens=True))

    def _answer(
        self, shot: ShotPictures, caption: str, readings: list[Reading] | NotANumber
    ) -> ShotReading | NotANumber:
        if isinstance(readings, NotANumber):
            return readings
        names = self._attributes
        by_frame = [readings[start : start + len(names)] for start in range(0, len(readings), len(names))]
        assert len(by_frame) == len(shot.pictures)
        return ShotReading(caption, {name: tuple(frame[a] for frame in by_frame) for a, name in enumerate(names)})


def _split(ran: BackboneOutput) -> list[list[Reading] | NotANumber]:
    """The readings of each shot."""
    counts = list(ran.questions)
    wholes, digits = (chances.split(counts) for chances in (ran.wholes, ran.digits))
    return list(map(_read_all, wholes, digits))


def _read_all(wholes: Tensor, digits: Tensor) -> list[Reading] | NotANumber:
    try:
        return read_scores(wholes.numpy(), digits.numpy())
    except NotANumber as error:
        return error


def _stop_tokens(model: Any, tokenizer: Any) -> set[int]:
    """Every token that ends an answer: the checkpoint's own list and the tokenizer's."""
    stops = model.generation_config.eos_token_id
    listed = stops if isinstance(stops, list) else [stops]
    return {token for token in (*listed, tokenizer.eos_token_id) if token is not None}
