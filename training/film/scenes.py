"""What is in a shot, drawn from a seed: every number that the pictures, the caption and the scores come from.

Lengths are in half picture heights: x runs from -aspect (left) to +aspect (right), y from -1 (top) to 1 (bottom).
Time runs from 0 (first frame) to 1 (last frame).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from training.film.camera import MOVES, Path, draw_path

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# `texture` is no place: overlapping discs (the dead leaves model, whose statistics are those of photographs) that teach
# movement and light apart from anything that can be named. It bears no caption.
PLACES = ("room", "corridor", "street", "forest", "sea", "sky", "field", "texture", "title")
UNSEEN_PLACES = ("desert", "mountains", "bridge")
ALL_PLACES = PLACES + UNSEEN_PLACES
SUBJECTS = ("nobody", "person", "two", "face", "crowd", "car", "fire", "title")
TIMES = ("day", "dusk", "night")
WEATHERS = ("clear", "fog", "rain")

PEOPLE = ("nobody", "person", "two", "face")
ON_LAND = (*PEOPLE, "crowd", "fire")
SUBJECTS_OF: dict[str, tuple[str, ...]] = {
    "room": ON_LAND,
    "corridor": (*PEOPLE, "crowd"),
    "street": (*ON_LAND, "car", "car"),
    "forest": ON_LAND,
    "sea": PEOPLE,
    "sky": PEOPLE,
    "field": (*ON_LAND, "car"),
    "texture": ("nobody", "nobody", "person"),
    "title": ("title",),
    "desert": (*PEOPLE, "car"),
    "mountains": PEOPLE,
    "bridge": (*PEOPLE, "car"),
}
INDOORS = ("room", "corridor")

# How often a place is drawn.
SHARE_OF_PLACE = {"texture": 0.12, "title": 0.05}


@dataclass(frozen=True, slots=True)
class Scenes:
    """A batch of B shots with T frames each. Arrays have shape (B,), unless another is given.

    Attributes:
        place: index into ALL_PLACES.
        subject: index into SUBJECTS.
        time: index into TIMES.
        weather: index into WEATHERS.
        move: index into camera.MOVES.
        path: where the camera looks, arrays of shape (B, T).
        exposure: stops, 0 is as the time of day has it; shape (B, T) for fades.
        hard: 0 soft to 1 hard light.
        light_angle: where the light comes from, radians.
        contrast: exponent of the grading curve around middle grey.
        saturation: 0 grey to 1 and more.
        warmth: -1 blue to 1 orange.
        blur: lens blur, 0 sharp to 1.
        grain: standard deviation of the film grain, of 1.
        fog: density, 0 none to 1.
        rain: density, 0 none to 1.
        vignette: darkening of the corners, 0..1.
        bars: height of black bars above and below, as a share of the picture.
        offset: where in the textures this shot lies, (B, 2).
        layout: numbers that a place makes of what it wants, uniform 0..1, (B, 8).
        hues: three colours of the place, RGB 0..1, (B, 3, 3).
        cloth: colour of the subject, RGB 0..1, (B, 3).
        skin: RGB 0..1, (B, 3).
        size: of the subject: half its height, in half picture heights.
        subject_x: its place at half time.
        subject_y: likewise.
        velocity: half picture heights that it moves to the right between the first and the last frame.
        tension: a face's expression, 0 calm to 1 afraid; also how bent a figure stands.
    """

    place: Ints
    subject: Ints
    time: Ints
    weather: Ints
    move: Ints
    path: Path
    exposure: Floats
    hard: Floats
    light_angle: Floats
    contrast: Floats
    saturation: Floats
    warmth: Floats
    blur: Floats
    grain: Floats
    fog: Floats
    rain: Floats
    vignette: Floats
    bars: Floats
    offset: Floats
    layout: Floats
    hues: Floats
    cloth: Floats
    skin: Floats
    size: Floats
    subject_x: Floats
    subject_y: Floats
    velocity: Floats
    tension: Floats

    def __len__(self) -> int:
        """Shots."""
        return len(self.place)

    def subset(self, rows: NDArray[np.int64]) -> Scenes:
        """Some of the shots."""
        numbers = {field.name: getattr(self, field.name)[rows] for field in fields(self) if field.name != "path"}
        return Scenes(path=self.path.subset(rows), **numbers)

    def at_frames(self, frames: list[int]) -> Scenes:
        """The same shots with some of their frames; these must be evenly spaced from the first to the last."""
        return replace(self, path=self.path.at_frames(frames), exposure=self.exposure[:, frames])


def frame_times(frames: int) -> Floats:
    """Moments of evenly spaced frames, 0..1."""
    return np.linspace(0, 1, frames, dtype=np.float32) if frames > 1 else np.full(1, 0.5, np.float32)


def draw_scenes(
    seed: int, shots: int, *, frames: int = 5, aspect: float = 16 / 9, places: Sequence[str] = PLACES
) -> Scenes:
    """Draw shots; the same seed gives the same shots.

    Args:
        seed: of the random numbers.
        shots: B.
        frames: T, evenly spaced; a shot of one frame stands still, for one picture shows no movement.
        aspect: width over height of the pictures.
        places: kinds of scene to draw from.
    """
    rng = np.random.default_rng(seed)
    place = _draw_places(rng, shots, places)
    subject = np.array([SUBJECTS.index(rng.choice(SUBJECTS_OF[ALL_PLACES[p]])) for p in place])
    size, x, y = _draw_framing(rng, subject, aspect)
    still_subject = np.isin(subject, _numbers(SUBJECTS, ("nobody", "fire", "title", "crowd")))
    move = _draw_moves(rng, place, subject, one_frame=frames == 1)
    moves = rng.random(shots) < 0.45
    velocity = np.where(still_subject | ~moves, 0, _signed(rng, np.exp(rng.uniform(np.log(0.15), np.log(1.6), shots))))
    # What the camera follows moves as the camera does, and nobody moves in a single picture.
    velocity = np.where((move == MOVES.index("follow")) | (frames == 1), 0, velocity)
    weather, fog, rain = _draw_weather(rng, place)
    time = rng.integers(len(TIMES), size=shots)
    return Scenes(
        place=place,
        subject=subject,
        time=time,
        weather=weather,
        move=move,
        path=draw_path(rng, move, frame_times(frames), aspect, (x, y)),
        exposure=_draw_exposure(rng, shots, frame_times(frames)),
        hard=rng.random(shots, np.float32),
        light_angle=rng.uniform(0, 2 * np.pi, shots).astype(np.float32),
        contrast=np.exp(rng.normal(0, 0.22, shots)).astype(np.float32),
        saturation=rng.uniform(0.25, 1.35, shots).astype(np.float32),
        warmth=rng.uniform(-0.35, 0.35, shots).astype(np.float32),
        blur=np.where(rng.random(shots) < 0.25, rng.uniform(0.3, 1, shots), 0).astype(np.float32),
        grain=(0.05 * rng.random(shots) ** 2).astype(np.float32),
        fog=fog,
        rain=rain,
        vignette=(0.7 * rng.random(shots) ** 2).astype(np.float32),
        bars=np.where(rng.random(shots) < 0.12, rng.uniform(0.04, 0.13, shots), 0).astype(np.float32),
        offset=rng.uniform(0, 64, (shots, 2)).astype(np.float32),
        layout=rng.random((shots, 8), np.float32),
        hues=_draw_colours(rng, (shots, 3)),
        cloth=_draw_colours(rng, (shots,)),
        skin=_draw_skin(rng, shots),
        size=size,
        subject_x=x,
        subject_y=y,
        velocity=velocity.astype(np.float32),
        tension=rng.random(shots, np.float32),
    )


def _numbers(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    return [names.index(name) for name in wanted]


def _signed(rng: np.random.Generator, values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(rng.random(values.shape) < 0.5, values, -values)


def _draw_places(rng: np.random.Generator, shots: int, places: Sequence[str]) -> Ints:
    fixed = {name: SHARE_OF_PLACE[name] for name in places if name in SHARE_OF_PLACE}
    others = (1 - sum(fixed.values())) / max(1, len(places) - len(fixed))
    shares = np.array([fixed.get(name, others) for name in places])
    return rng.choice(_numbers(ALL_PLACES, places), size=shots, p=shares / shares.sum())


def _draw_moves(rng: np.random.Generator, place: Ints, subject: Ints, *, one_frame: bool) -> Ints:
    """Titles stand still, and what follows needs somebody to follow."""
    shots = len(place)
    if one_frame:
        return np.zeros(shots, np.int64)
    weights = np.array([2.4 if name == "still" else 1.0 for name in MOVES])
    move = rng.choice(len(MOVES), size=shots, p=weights / weights.sum())
    followed = np.isin(subject, _numbers(SUBJECTS, ("person", "two", "car")))
    lost = (move == MOVES.index("follow")) & ~followed
    move = np.where(lost, rng.choice(_numbers(MOVES, ("pan left", "pan right")), size=shots), move)
    # Half of those who could be followed are in a plain pan's place: otherwise following would be rare.
    gained = followed & np.isin(move, _numbers(MOVES, ("still",))) & (rng.random(shots) < 0.35)
    move = np.where(gained, MOVES.index("follow"), move)
    return np.where(place == ALL_PLACES.index("title"), MOVES.index("still"), move)


def _draw_framing(rng: np.random.Generator, subject: Ints, aspect: float) -> tuple[Floats, Floats, Floats]:
    """Size and place of the subjects."""
    shots = len(subject)
    low = np.array([0.1, 0.3, 0.3, 0.65, 0.3, 0.16, 0.2, 0.3])[subject]
    high = np.array([0.1, 0.85, 0.8, 1.15, 0.6, 0.42, 0.75, 0.7])[subject]
    size = rng.uniform(low, high)
    x = rng.uniform(-0.5, 0.5, shots) * aspect
    is_face = subject == SUBJECTS.index("face")
    x = np.where(is_face, 0.6 * x, x)
    # Feet near the lower edge; a face in the middle.
    y = np.where(is_face, rng.uniform(-0.1, 0.15, shots), rng.uniform(0.75, 1.0, shots) - size)
    return size.astype(np.float32), x.astype(np.float32), y.astype(np.float32)


def _draw_weather(rng: np.random.Generator, place: Ints) -> tuple[Ints, Floats, Floats]:
    shots = len(place)
    weather = rng.choice(len(WEATHERS), size=shots, p=[0.6, 0.22, 0.18])
    dry = np.isin(place, _numbers(ALL_PLACES, (*INDOORS, "title", "texture")))
    weather = np.where(dry, WEATHERS.index("clear"), weather)
    fog = np.where(weather == WEATHERS.index("fog"), rng.uniform(0.45, 0.95, shots), 0.12 * rng.random(shots))
    fog = np.where(place == ALL_PLACES.index("title"), 0, fog)
    rain = np.where(weather == WEATHERS.index("rain"), rng.uniform(0.4, 1, shots), 0)
    return weather, fog.astype(np.float32), rain.astype(np.float32)


def _draw_exposure(rng: np.random.Generator, shots: int, times: Floats) -> Floats:
    """Stops at each frame: constant, but for one shot in twelve that fades."""
    base = rng.normal(0, 0.75, shots).clip(-2, 1.6)
    fade = np.where(rng.random(shots) < 1 / 12, _signed(rng, rng.uniform(1.5, 5, shots)), 0)
    # A fade only ever takes light away.
    moment = np.where(fade[:, None] > 0, times[None] - 1, times[None])
    return np.asarray(base[:, None] + fade[:, None] * moment, dtype=np.float32)


def _draw_colours(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """RGB, linear light, of every hue and mostly muted."""
    grey = np.exp(rng.uniform(np.log(0.05), np.log(0.75), (*shape, 1)))
    tint = rng.dirichlet((2.5, 2.5, 2.5), shape) * 3
    return np.asarray((grey * (0.35 + 0.65 * tint)).clip(0, 1), dtype=np.float32)


def _draw_skin(rng: np.random.Generator, shots: int) -> Floats:
    """Human skin, from dark to light, in linear light."""
    lightness = rng.random((shots, 1))
    dark, light = np.array([0.09, 0.045, 0.025]), np.array([0.72, 0.46, 0.34])
    return np.asarray(dark + (light - dark) * lightness, dtype=np.float32)
