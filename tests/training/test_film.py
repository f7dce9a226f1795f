"""The renderer paints the same film from the same seed, and the truth it tells is the truth of what it painted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qwen_shots import measure
from qwen_shots.fusion import key_frame_indices
from training.film import truth
from training.film.camera import MOVES, Path, mean_displacement
from training.film.render import Renderer
from training.film.scenes import ALL_PLACES, PLACES, SUBJECTS, SUBJECTS_OF, UNSEEN_PLACES, Scenes, draw_scenes

HEIGHT, WIDTH = 56, 84
ASPECT = WIDTH / HEIGHT


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer()


def paint(renderer: Renderer, scenes: Scenes) -> torch.Tensor:
    return renderer.frames(scenes, HEIGHT, WIDTH)


def test_a_seed_is_a_film(renderer: Renderer) -> None:
    one, same, other = (paint(renderer, draw_scenes(seed, 6, aspect=ASPECT)) for seed in (4, 4, 5))
    assert one.shape == (6, 5, 3, HEIGHT, WIDTH)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("place", ALL_PLACES)
def test_every_place_and_subject_can_be_painted(renderer: Renderer, place: str) -> None:
    scenes = draw_scenes(1, 40, aspect=ASPECT, places=[place])
    # Nothing here is painted by luck: every subject that the place may have is among the forty.
    assert {SUBJECTS[subject] for subject in scenes.subject} == set(SUBJECTS_OF[place])
    film = paint(renderer, scenes.at_frames([0]))
    assert (film.float().std(dim=(1, 2, 3, 4)) > 1).float().mean() > 0.9


def test_unseen_places_are_not_trained_on() -> None:
    assert not set(PLACES) & set(UNSEEN_PLACES)
    assert not set(draw_scenes(3, 500).place) & {ALL_PLACES.index(place) for place in UNSEEN_PLACES}


def test_darkness_is_what_the_server_measures(renderer: Renderer) -> None:
    film = paint(renderer, draw_scenes(2, 8, aspect=ASPECT).at_frames([0]))
    ours = truth.darkness(film)[:, 0].numpy()
    theirs = [measure.darkness(measure.luminance([frame])) for frame in film[:, 0].permute(0, 2, 3, 1).numpy()]
    # Ours looks at every second pixel.
    np.testing.assert_allclose(ours, theirs, atol=0.03)


def test_motion_has_the_servers_scale() -> None:
    assert truth.MOTION_SCALE == measure.MOTION_SCALE


def path(x: list[float], zoom: list[float]) -> Path:
    rows = np.array([x, zoom], np.float32)[:, None]
    still = np.zeros_like(rows[0])
    return Path(x=rows[0], y=still, travel=still, zoom=rows[1], roll=still)


def test_displacement_is_in_picture_widths() -> None:
    # The picture is 2 * aspect wide: a pan over a quarter of it in each of two steps.
    pan = path([0, ASPECT / 2, ASPECT], [0, 0, 0])
    np.testing.assert_allclose(mean_displacement(pan, np.array([MOVES.index("pan right")]), ASPECT), 0.25, rtol=1e-6)
    cut = path([0, 0, 0], [0, 0, 0.8])
    assert mean_displacement(cut, np.array([MOVES.index("cut")]), ASPECT) == 0


def test_scores_and_captions(renderer: Renderer) -> None:
    scenes = draw_scenes(8, 64, aspect=ASPECT)
    keys = list(key_frame_indices(5))
    film = paint(renderer, scenes.at_frames(keys))
    told = truth.tell_truth(scenes.at_frames(keys), film)
    assert told.scores.shape == (64, 3, len(truth.ATTRIBUTES))
    assert told.scores.min() >= 0
    assert told.scores.max() <= 1
    assert (told.scores.std(axis=(0, 1)) > 0.05).all()
    for caption, place, subject, move in zip(told.captions, scenes.place, scenes.subject, scenes.move, strict=True):
        if ALL_PLACES[place] == "texture":
            assert caption == ""
        else:
            assert caption.startswith(truth.WHO[SUBJECTS[subject]])
            assert caption.endswith(f"{truth.CAMERA[MOVES[move]]}.")
