"""The model's side on real transformers classes: packed equals alone, and batches change nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch

import model_loader
from engines.base import ShotPictures, ShotReading
from engines.packing import pack_branches, pad_left, visibility
from engines.pixels import grid_of, to_patches, token_count
from engines.qwen2vl.backbone import Qwen2VL
from engines.runner import Batch, ModelRunner
from engines.stock import Stock
from qwen_shots import prompt
from qwen_shots.errors import NotANumber
from qwen_shots.scoring import read_score
from settings import Settings
from tests import families
from tests.helpers import TOLERANCE, assert_same, scene


@pytest.fixture(scope="module")
def loaded(settings: Settings) -> model_loader.LoadedModel:
    folder = model_loader.find_files(settings.model.name)
    return model_loader.load(settings.model, folder, model_loader.make_plan(settings.model, folder))


@pytest.fixture(scope="module")
def runner(loaded: model_loader.LoadedModel, settings: Settings) -> ModelRunner:
    return ModelRunner(loaded, settings.attributes, settings.model.max_caption_tokens)


def pictures(seed: int, count: int = 3, rows: int = 4, columns: int = 7) -> ShotPictures:
    return ShotPictures(tuple(scene(seed + n, 28 * rows, 28 * columns) for n in range(count)))


def look(runner: ModelRunner, *shots: ShotPictures) -> list[ShotReading]:
    answers = runner.look(shots)
    assert all(isinstance(answer, ShotReading) for answer in answers)
    return [answer for answer in answers if isinstance(answer, ShotReading)]


def ask_alone(
    loaded: model_loader.LoadedModel, settings: Settings, shot: ShotPictures, stem: str, written: Sequence[int] = ()
) -> torch.Tensor:
    """The next token's probabilities after `stem` and `written`, by transformers' plain forward pass, unpacked."""
    tokenizer, model, spec = loaded.tokenizer, loaded.model, loaded.pictures
    text = tokenizer.apply_chat_template(
        prompt.messages(settings.attributes, len(shot.pictures)),
        tokenize=False,
        add_generation_prompt=True,
        add_vision_id=True,
    )
    for picture in shot.pictures:
        text = text.replace("<|image_pad|>", "<|placeholder|>" * token_count(picture, spec), 1)
    text = text.replace("<|placeholder|>", "<|image_pad|>")
    ids = torch.tensor([[*tokenizer.encode(text + stem, add_special_tokens=False), *written]])
    kinds = (ids == model.config.image_token_id).int()
    with torch.inference_mode():
        logits = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=kinds,
            pixel_values=torch.from_numpy(to_patches(shot.pictures, spec)),
            image_grid_thw=torch.tensor([grid_of(picture, spec) for picture in shot.pictures]),
        ).logits
    return torch.softmax(logits[0, -1].float(), dim=-1)


def test_packed_scores_equal_asking_each_branch_alone(
    loaded: model_loader.LoadedModel, runner: ModelRunner, settings: Settings
) -> None:
    shot = pictures(3)
    (answer,) = look(runner, shot)
    digits = [loaded.tokenizer.encode(digit)[0] for digit in "0123456789"]
    for name in settings.attributes:
        for number, reading in enumerate(answer.readings[name], start=1):
            wholes = ask_alone(loaded, settings, shot, prompt.score_stem(number, name))[digits[:2]]
            tenths = ask_alone(loaded, settings, shot, prompt.score_branch(number, name))[digits]
            alone = read_score(wholes.tolist(), tenths.tolist())
            assert reading.value == pytest.approx(alone.value, abs=TOLERANCE)
            assert reading.mass == pytest.approx(alone.mass, abs=TOLERANCE)


def test_the_caption_is_the_likeliest_words_one_after_another(
    loaded: model_loader.LoadedModel, runner: ModelRunner, settings: Settings
) -> None:
    shot = pictures(60, 3, 3, 5)
    (answer,) = look(runner, shot)
    tokens: list[int] = []
    for _ in range(settings.model.max_caption_tokens):
        token = int(ask_alone(loaded, settings, shot, prompt.CAPTION_CUE, tokens).argmax())
        if token == loaded.tokenizer.eos_token_id:
            break
        tokens.append(token)
    expected = loaded.tokenizer.decode(tokens, skip_special_tokens=True)
    assert tokens
    assert answer.caption == " ".join(expected.rstrip("\N{REPLACEMENT CHARACTER}").split())


def test_more_is_asked_for_once_when_half_of_the_text_is_read(runner: ModelRunner) -> None:
    backbone = runner.backbone
    assert isinstance(backbone, Qwen2VL)
    batch = backbone.prepare([pictures(3), pictures(40)])
    happened: list[str] = []
    ran = backbone.run(batch, lambda: happened.append("asked"))
    with torch.inference_mode():
        numbers = backbone.to_device(batch)
        seen = backbone.see(batch, numbers, batch.pixels.bytes)
        hidden = backbone.read(batch, numbers, seen, lambda: happened.append("half read"))
        told = backbone.tell(batch, hidden)
    assert happened == ["asked", "half read"]
    assert torch.equal(told.first, ran.tokens[:, 0])


def test_an_answer_does_not_depend_on_its_batch(runner: ModelRunner) -> None:
    shapes = [(3, 4, 7), (3, 2, 9), (1, 3, 3), (2, 5, 4), (3, 4, 7)]
    shots = [pictures(10 * n, *shapes[n % len(shapes)]) for n in range(10)]
    alone = [look(runner, shot)[0] for shot in shots]
    order = list(range(10))
    for seed in range(3):
        random.Random(seed).shuffle(order)
        for place, answer in zip(order, look(runner, *(shots[n] for n in order)), strict=True):
            assert_same(answer, alone[place])
    for other in (1, 4, 9):
        assert_same(look(runner, shots[0], shots[other])[0], alone[0])


def test_our_forward_pass_answers_as_transformers_own(runner: ModelRunner, loaded: model_loader.LoadedModel) -> None:
    shots = [pictures(70, 3, 4, 7), pictures(80, 1, 2, 9), pictures(90, 2, 5, 3)]
    ours = look(runner, *shots)
    backbone = runner.backbone
    assert isinstance(backbone, Qwen2VL)
    stock = Stock(loaded, runner._questions, backbone._most_tokens, runner._stops)
    prepared = stock.prepare(shots)
    theirs = runner.finish(Batch(tuple(shots), prepared), stock.run(prepared))
    for mine, other in zip(ours, theirs, strict=True):
        assert isinstance(other, ShotReading)
        assert_same(mine, other)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_shot_counts_as_what_it_takes(runner: ModelRunner, count: int) -> None:
    shot = pictures(5, count, 3, 4)
    layout = runner.prepare([shot] * 2).prepared.layout
    cached, read = int(layout.places[-1]), len(layout.ids)
    assert max(cached, read) == 2 * (count * 12 + runner.backbone.text_tokens(count))


def test_a_batch_larger_than_any_before_is_answered_too(runner: ModelRunner) -> None:
    backbone = runner.backbone
    assert isinstance(backbone, Qwen2VL)
    before = backbone._decoder.cache.shape[1]
    shot = pictures(5, 1, 2, 2)
    shots = [shot] * (before // 100 + 1)
    answers = look(runner, *shots)
    assert backbone._decoder.cache.shape[1] > before
    assert_same(answers[-1], look(runner, shot)[0])


def test_different_pictures_get_different_answers(runner: ModelRunner) -> None:
    one, other = look(runner, pictures(1), pictures(50))
    assert one.readings != other.readings


def test_patches_equal_those_of_transformers(loaded: model_loader.LoadedModel) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    shot = pictures(2, 2, 5, 3)
    processor = Qwen2VLImageProcessorPil(do_resize=False)
    theirs = processor(images=list(shot.pictures), return_tensors="np")
    np.testing.assert_allclose(to_patches(shot.pictures, loaded.pictures), theirs["pixel_values"], atol=1e-5)
    assert theirs["image_grid_thw"].tolist() == [list(grid_of(p, loaded.pictures)) for p in shot.pictures]


def test_not_a_number_is_that_shots_error_and_no_score(loaded: model_loader.LoadedModel, settings: Settings) -> None:
    runner = ModelRunner(loaded, settings.attributes, 4)
    backbone = runner.backbone
    assert isinstance(backbone, Qwen2VL)
    exact = backbone._chances

    def poisoned(hidden: torch.Tensor) -> torch.Tensor:
        chances = exact(hidden)
        chances[: len(chances) // 2] = torch.nan
        return chances

    backbone._chances = poisoned  # type: ignore[method-assign]
    first, second = runner.look([pictures(1), pictures(2)])
    assert isinstance(first, NotANumber)
    assert isinstance(second, ShotReading)


def test_a_branch_sees_the_prefix_and_itself() -> None:
    _, real = pad_left([[1, 1, 1], [1]], fill=0)
    seen = visibility(real, pack_branches([[[5, 6], [7]], [[8], []]]))[:, 0]
    assert seen[0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 0, 0, 1],
    ]
    assert seen[1].int().tolist()[3] == [0, 0, 1, 1, 0, 0]
    assert bool(seen.any(dim=-1).all())


@pytest.mark.parametrize("family", families.VISION)
def test_other_families_serve_too(family: str, loaded: model_loader.LoadedModel, settings: Settings) -> None:
    model = families.tiny_model(family)
    vision = model.config.vision_config
    spec = model_loader.PictureSpec(
        vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size, (0.5,) * 3, (0.5,) * 3
    )
    runner = ModelRunner(model_loader.LoadedModel(model, loaded.tokenizer, spec), settings.attributes, 4)
    side = spec.factor
    shots = [
        ShotPictures(tuple(scene(n + k, side * rows, side * 4) for k in range(3))) for n, rows in enumerate((3, 5))
    ]
    together = look(runner, *shots)
    for shot, answer in zip(shots, together, strict=True):
        assert_same(look(runner, shot)[0], answer)
