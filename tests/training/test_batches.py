"""What the model is trained on is what the server will ask, and what it should answer is the truth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

import model_loader
from engines.base import ShotPictures, ShotReading
from engines.runner import ModelRunner
from settings import Settings
from tests.helpers import TOLERANCE
from training.batches import (
    BUCKETS,
    CAPTION_TOKENS,
    IGNORED,
    Bucket,
    ShotSource,
    build_layout,
    draw_bucket,
    questions_of,
    score_targets,
    stream,
)
from training.film.truth import ATTRIBUTES, CAMERA, WEATHER, WHEN, WHERE, WHO
from training.forward import read

SMALL = Bucket(3, 4, 5, 1.0)


@pytest.fixture(scope="module")
def loaded(settings: Settings) -> model_loader.LoadedModel:
    folder = model_loader.find_files(settings.model.name)
    return model_loader.load(settings.model, folder, model_loader.make_plan(settings.model, folder))


@pytest.fixture(scope="module")
def source(loaded: model_loader.LoadedModel) -> ShotSource:
    return ShotSource(loaded.tokenizer, "cpu")


def test_targets_have_the_score_as_their_mean() -> None:
    scores = torch.tensor([0.0, 0.04, 0.1, 0.55, 0.9, 0.93, 1.0])
    one, digits = score_targets(scores)
    torch.testing.assert_close(digits.sum(-1), torch.ones(len(scores)))
    torch.testing.assert_close(one + (1 - one) * (digits @ (torch.arange(10) / 10)), scores)


@torch.no_grad()
def test_the_training_asks_as_the_server_does(
    loaded: model_loader.LoadedModel, source: ShotSource, settings: Settings
) -> None:
    shots, _ = source.render(3, 4, SMALL)
    questions = questions_of(loaded.tokenizer, settings.attributes, loaded.model.config.image_token_id)
    layout = build_layout(loaded.model, questions, SMALL, "cpu")
    wholes, digits, _ = read(loaded.model, layout, shots.film, shots.captions)
    one = wholes[..., questions.digits[:2]].softmax(-1)[..., 1]
    tenths = digits[..., questions.digits].softmax(-1) @ (torch.arange(10) / 10)
    trained = (one + (1 - one) * tenths).reshape(4, 3, len(ATTRIBUTES)).numpy()
    runner = ModelRunner(loaded, settings.attributes, max_caption_tokens=0)
    for row, frames in enumerate(shots.film.permute(0, 1, 3, 4, 2).numpy()):
        (served,) = runner.look([ShotPictures(tuple(np.ascontiguousarray(frames)))])
        assert isinstance(served, ShotReading)
        values = [[served.readings[name][k].value for name in ATTRIBUTES] for k in range(3)]
        np.testing.assert_allclose(trained[row], values, atol=TOLERANCE)


def test_every_caption_fits(loaded: model_loader.LoadedModel) -> None:
    longest = [max(words.values(), key=len) for words in (WHO, WHERE, WHEN, WEATHER, CAMERA)]
    who, where, when, weather, camera = longest
    caption = f" {who} {where} {when}{weather}, {camera}."
    assert len(loaded.tokenizer.encode(caption)) + 1 <= CAPTION_TOKENS


def test_captions_are_told_in_the_models_words(source: ShotSource, loaded: model_loader.LoadedModel) -> None:
    shots, captions = source.render(5, 24, SMALL)
    for row, caption in zip(shots.captions, captions, strict=True):
        ids = row[row != IGNORED].tolist()
        if caption:
            assert loaded.tokenizer.decode(ids[:-1]) == f" {caption}"
            assert ids[-1] == loaded.tokenizer.eos_token_id
        else:
            assert not ids


def test_a_mirror_swaps_left_and_right(source: ShotSource, loaded: model_loader.LoadedModel) -> None:
    shots, captions = source.render(6, 64, SMALL)
    mirrored = source.mirrored(shots, captions)
    assert torch.equal(mirrored.film.flip(-1), shots.film)
    swapped = 0
    for row, caption in zip(mirrored.captions, captions, strict=True):
        told = loaded.tokenizer.decode(row[row != IGNORED].tolist()[:-1]).strip()
        if "pans left" in caption:
            assert told == caption.replace("left", "right")
            swapped += 1
        elif "pans right" in caption:
            assert told == caption.replace("right", "left")
            swapped += 1
        else:
            assert told == caption
    assert swapped > 3


def test_the_stream_starts_where_it_is_told_and_repeats_itself(source: ShotSource) -> None:
    def first_films(seed: int) -> Iterator[torch.Tensor]:
        steps = stream(source, seed, chunk=16, batch=16, at_once=1)
        return (next(steps)[1].film for _ in range(2))

    for one, same in zip(first_films(7), first_films(7), strict=True):
        assert torch.equal(one, same)
    # Every shape comes up.
    assert {draw_bucket(seed) for seed in range(400)} == set(BUCKETS)
