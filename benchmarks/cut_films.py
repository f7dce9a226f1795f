"""Films whose cuts are known, rendered from the sample stills and clips: the kinds that `benchmarks.cuts` scores."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.film_frames import STILLS
from qwen_shots.media import Picture
from tests.helpers import ROOT

RATE = 24
HEIGHT, WIDTH = 180, 320
SHOT = 60  # frames

# ffmpeg filters: the picture's size within 320 x 180.
BARS = {
    "1.85": "scale=320:172",
    "2.00": "scale=320:160",
    "2.39": "scale=320:134",
    "1.33": "scale=240:180",
    "all around": "scale=240:134",
}
QUALITIES = (18, 28, 34)  # crf of x264; more is worse

# Borders of the real clips, seen picture by picture: where the next shot begins, or the middle of a gradual change and
# by how many pictures one may be off.
CLIPS = {
    "big-buck-bunny-30s.mp4": ((285, 0), (378, 0), (553, 0)),
    "sintel-trailer.mp4": (
        *((226, 0), (282, 10), (336, 0), (398, 1), (422, 0), (525, 8), (573, 0), (623, 0), (660, 0)),
        *((676, 8), (774, 8), (1142, 1), (1165, 0), (1222, 0)),
    ),
}
# What dissolves in it, or goes under a title that stays.
CLIP_DISSOLVES = {"big-buck-bunny-30s.mp4": (), "sintel-trailer.mp4": ((124, 8), (852, 12), (990, 26))}

BRIGHT_AND_DARK = tuple(
    f"{scene}-{number}"
    for number in (1, 3)
    for scene in ("face", "snow", "ruins", "alley", "dunes", "fight", "dragon", "firelight")
)
DARK = ("alley-1", "firelight-1", "ruins-1", "alley-3", "firelight-3", "ruins-3")
LIKE = ("fight-1", "snow-1", "fight-3", "snow-3", "alley-1", "dunes-1", "ruins-1")
PATTERNS = (
    "testsrc2",
    "mandelbrot",
    "smptebars",
    "rgbtestsrc",
    "cellauto=rule=110",
    "life=mold=10:ratio=.2",
    "testsrc",
    "pal75bars",
)

Shot: TypeAlias = Iterator[Picture]
Join: TypeAlias = Callable[[list[Picture], list[Picture]], list[Picture]]
Effect: TypeAlias = Callable[[Iterable[Picture]], Iterable[Picture]]


@dataclass(frozen=True, slots=True)
class Border:
    """A border of the truth.

    Attributes:
        frame: the first picture of the next shot, or the middle of a gradual change.
        slack: pictures by which a found border may be off.
    """

    frame: int
    slack: int = 0


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of film.

    Attributes:
        borders: its truth.
        source: arguments that give ffmpeg its input; None where `pictures` does.
        pictures: renders it.
        filters: ffmpeg filters before it is encoded.
        crf: quality of x264; more is worse.
        options: more arguments of ffmpeg.
        optional: borders that may be found or not.
    """

    borders: tuple[Border, ...]
    pictures: Callable[[], Iterable[Picture]] | None = None
    source: tuple[str, ...] = ()
    filters: str = "null"
    crf: int = 20
    options: tuple[str, ...] = ()
    optional: tuple[Border, ...] = ()

    def write(self, path: Path) -> Path:
        """Render and encode it."""
        raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(RATE), "-i", "-")
        coded = ("-c:v", "libx264", "-preset", "veryfast", "-crf", str(self.crf), "-pix_fmt", "yuv420p", "-an")
        filters = ("-filter_complex" if "[" in self.filters else "-vf", self.filters)
        command = ["ffmpeg", "-v", "error", "-y", *(self.source or raw), *filters, *coded, *self.options, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as encoder:
            assert encoder.stdin
            for picture in self.pictures() if self.pictures else ():
                encoder.stdin.write(picture.tobytes())
            encoder.stdin.close()
        assert encoder.returncode == 0, command
        return path


# --- shots -----------------------------------------------------------------------------------------------------------


@cache
def _still(name: str) -> Picture:
    with Image.open(STILLS / f"{name}.jpg") as image:
        return np.asarray(image.convert("RGB"), np.uint8)


def shoot(
    name: str,
    seed: int,
    *,
    pan: float = 0.6,
    shake: float = 0.0,
    zoom: float = 1.6,
    gain: float = 1.0,
    side: float = 0.5,
) -> Shot:
    """Film a still without end, with a camera that pans and is held by hand.

    Args:
        name: of the still.
        seed: where the camera goes.
        pan: pixels a picture.
        shake: pixels, standard deviation.
        zoom: the still's enlargement.
        gain: of the light.
        side: where the camera looks, 0 (left) to 1 (right).
    """
    still = _still(name)
    random = np.random.default_rng(seed)
    height, width = still.shape[:2]
    angle, wobble = random.uniform(0, 2 * np.pi), np.zeros(2)
    for number in count():
        wobble = 0.8 * wobble + random.normal(0, shake, 2) if shake else wobble
        room = np.array([width * zoom - WIDTH, height * zoom - HEIGHT])
        way = room * (side, 0.5) + pan * number * np.array([np.cos(angle), np.sin(angle) / 3]) + wobble
        x, y = np.clip(way, 0, room)
        matrix = np.array([[zoom, 0, -x], [0, zoom, -y]])
        picture = cv2.warpAffine(still, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        yield np.asarray((picture * gain).clip(0, 255), np.uint8) if gain != 1 else np.asarray(picture, np.uint8)


def take(shot: Shot, pictures: int) -> list[Picture]:
    """The next pictures of a shot."""
    return [next(shot) for _ in range(pictures)]


# --- what joins shots ------------------------------------------------------------------------------------------------


def joined(shots: Sequence[Shot], join: Join, length: int) -> Iterator[Picture]:
    """Shots of SHOT pictures each, the last `length` of one and the first of the next made one by `join`."""
    for number, shot in enumerate(shots):
        yield from take(shot, SHOT)
        if length and number + 1 < len(shots):
            yield from join(take(shot, length), take(shots[number + 1], length))


def _mixed(one: Picture, other: Picture, share: float | NDArray[np.float64]) -> Picture:
    return np.asarray(one * (1 - share) + other * share, np.uint8)


def dissolve(ends: list[Picture], begins: list[Picture]) -> list[Picture]:
    """Mix them."""
    shares = np.linspace(0, 1, len(ends) + 2)[1:-1]
    return [_mixed(*each) for each in zip(ends, begins, shares, strict=True)]


def fade(ends: list[Picture], begins: list[Picture], colour: int = 0) -> list[Picture]:
    """Out to a colour, and in."""
    shares = (np.abs(np.linspace(-1.1, 1.1, len(ends))) * 1.15 - 0.15).clip(0, 1)
    plain = np.full_like(ends[0], colour)
    half = len(ends) // 2
    return [_mixed(plain, picture, share) for picture, share in zip(ends[:half] + begins[half:], shares, strict=True)]


def wipe(ends: list[Picture], begins: list[Picture]) -> list[Picture]:
    """From left to right."""
    across = np.arange(WIDTH)[:, None] / WIDTH
    shares = np.linspace(0, 1, len(ends) + 2)[1:-1]
    return [_mixed(*each[:2], across < each[2]) for each in zip(ends, begins, shares, strict=True)]


# --- what is no cut --------------------------------------------------------------------------------------------------


def flashes(pictures: Iterable[Picture], every: int = 25) -> Iterator[Picture]:
    """Lamps of cameras: one to four pictures nearly white."""
    for number, picture in enumerate(pictures):
        lit = number % every - 10
        yield _mixed(picture, np.full_like(picture, 255), 0.85) if 0 <= lit <= number // every % 4 else picture


def explosions(pictures: Iterable[Picture], every: int = SHOT) -> Iterator[Picture]:
    """A ball of fire that fills the picture within three pictures and goes in a second."""
    down, across = np.mgrid[:HEIGHT, :WIDTH]
    away = np.hypot(down - HEIGHT * 0.6, across - WIDTH * 0.4)[..., None] / WIDTH
    fire = np.full((HEIGHT, WIDTH, 3), (255, 190, 90), np.uint8)
    for number, picture in enumerate(pictures):
        since = number % every - 20
        strength = 0.0 if since < 0 else min(1.0, (since + 1) / 3) * np.exp(-max(0, since - 3) / 7)
        shares = np.clip(strength * 1.6 - away * (1.2 - strength), 0, 1)
        yield _mixed(picture, fire, shares) if strength > 0.02 else picture


def flicker(pictures: Iterable[Picture]) -> Iterator[Picture]:
    """A fire's light, or a bad tube's."""
    random = np.random.default_rng(5)
    for picture in pictures:
        yield np.asarray((picture * random.uniform(0.6, 1.15)).clip(0, 255), np.uint8)


def whip_pans(names: Sequence[str]) -> Iterator[Picture]:
    """A camera that rests, turns by 180 degrees within ten pictures, and rests."""
    for number, name in enumerate(names):
        both = np.hstack([_still(name), _still(BRIGHT_AND_DARK[(number + 3) % len(BRIGHT_AND_DARK)])])
        wide = cv2.resize(both, (both.shape[1], HEIGHT))
        eased = np.concatenate([np.zeros(25), (1 - np.cos(np.linspace(0, np.pi, 12))) / 2, np.ones(23)])
        for place, speed in zip(eased, np.gradient(eased), strict=True):
            left = int(place * (wide.shape[1] - WIDTH))
            blur = max(1, int(speed * (wide.shape[1] - WIDTH) / 2))
            yield np.ascontiguousarray(cv2.blur(wide, (blur, 1))[:, left : left + WIDTH])


# --- the kinds -------------------------------------------------------------------------------------------------------


def _cuts(count: int, step: float = SHOT) -> tuple[Border, ...]:
    return tuple(Border(round(number * step)) for number in range(1, count))


def _hard(names: Sequence[str] = BRIGHT_AND_DARK, effect: Effect = iter, **camera: float) -> Kind:
    def pictures() -> Iterable[Picture]:
        return effect(joined([shoot(name, seed, **camera) for seed, name in enumerate(names)], dissolve, 0))

    return Kind(_cuts(len(names)), pictures)


def _look_alike() -> Kind:
    """Left and right of the same stills, and stills of the same colours."""

    def pictures() -> Iterable[Picture]:
        sides = [shoot(name, seed, side=side, zoom=2.0) for seed, name in enumerate(LIKE) for side in (0.0, 1.0)]
        return joined(sides, dissolve, 0)

    return Kind(_cuts(2 * len(LIKE)), pictures)


def _gradual(join: Join, length: int) -> Kind:
    def pictures() -> Iterable[Picture]:
        return joined([shoot(name, seed) for seed, name in enumerate(BRIGHT_AND_DARK)], join, length)

    middles = (number * (SHOT + length) - length // 2 for number in range(1, len(BRIGHT_AND_DARK)))
    return Kind(tuple(Border(middle, length // 2) for middle in middles), pictures)


def _barred(kind: Kind, bars: str, crf: int) -> Kind:
    return replace(kind, filters=f"{BARS[bars]},pad={WIDTH}:{HEIGHT}:-1:-1,setsar=1", crf=crf)


def _patterns() -> Kind:
    size = f"s={WIDTH}x{HEIGHT}:r={RATE},trim=duration={SHOT / RATE},format=yuv420p,setsar=1"
    graph = [f"{each}{':' if '=' in each else '='}{size}[v{number}]" for number, each in enumerate(PATTERNS)]
    inputs = "".join(f"[v{number}]" for number in range(len(PATTERNS)))
    return Kind(_cuts(len(PATTERNS)), filters=f"{';'.join(graph)};{inputs}concat=n={len(PATTERNS)}")


def _clip(name: str, bars: str, crf: int) -> Kind:
    borders, dissolves = (tuple(Border(*each) for each in truth[name]) for truth in (CLIPS, CLIP_DISSOLVES))
    source = ("-i", str(ROOT / "samples" / name))
    return Kind(borders, source=source, filters=bars, crf=crf, optional=dissolves)


def _static() -> dict[str, Kind]:
    """A picture that stays for three shots' length, and one cut."""
    still = replace(_hard(["face-1"] * 3 + ["firelight-1"] * 3, pan=0), borders=(Border(3 * SHOT),))
    bars = f"{BARS['2.39']},pad={WIDTH}:{HEIGHT}:-1:-1:0x101010,noise=alls=6:allf=t"
    return {
        "still": still,
        "still, grain": replace(still, filters="noise=alls=25:allf=t"),
        "still, noisy grey bars, crf 38": replace(still, filters=bars, crf=38),
    }


def _hard_kinds() -> dict[str, Kind]:
    plain, dark = _hard(), _hard(DARK, shake=2.5, gain=0.4)
    count = len(BRIGHT_AND_DARK)
    paced = replace(plain, options=("-fps_mode", "passthrough"))
    woven = replace(plain, filters="tinterlace=interleave_top", options=("-flags", "+ilme+ildct"))
    return {
        "hard cuts": plain,
        "look-alike scenes": _look_alike(),
        "dark, hand-held": dark,
        "very dark": _hard(DARK, shake=1, gain=0.2),
        "shaken": _hard(shake=6.0),
        "flashes": _hard(effect=flashes),
        "explosions": _hard(effect=explosions),
        "flickering light": _hard(effect=flicker),
        "whip pans": Kind(_cuts(8), lambda: whip_pans(BRIGHT_AND_DARK[:8])),
        "grain": replace(plain, filters="noise=alls=40:allf=t"),
        "grain in the dark": replace(dark, filters="noise=alls=15:allf=t"),
        "crf 42": replace(plain, crf=42),
        "interlaced": replace(woven, borders=_cuts(count, SHOT / 2)),
        "60 and then 8 a second": replace(
            paced, filters="settb=1/1000,setpts='if(lt(N,400),N/60,400/60+(N-400)/8)/TB'"
        ),
        "one a second": replace(
            paced, filters=f"select='not(mod(n,{SHOT // 3}))',settb=1/1000,setpts=N/TB", borders=_cuts(count, 3)
        ),
        "slide show": replace(
            paced, filters=f"select='not(mod(n,{SHOT}))',settb=1/1000,setpts=4*N/TB", borders=_cuts(count, 1)
        ),
        "test patterns": _patterns(),
    }


def all_kinds() -> dict[str, Kind]:
    """Every kind by its name."""
    mixed = _hard(BRIGHT_AND_DARK[:8] + DARK, shake=1)
    kinds = _hard_kinds() | _static()
    kinds |= {f"bars {bars}, crf {crf}": _barred(mixed, bars, crf) for bars in BARS for crf in QUALITIES}
    kinds |= {f"dissolves of {length}": _gradual(dissolve, length) for length in (6, 12, 24, 48)}
    kinds |= {f"fades to black of {length}": _gradual(fade, length) for length in (16, 32)}
    kinds |= {f"fades to white of {length}": _gradual(partial(fade, colour=255), length) for length in (16, 32)}
    kinds |= {f"wipes of {length}": _gradual(wipe, length) for length in (12, 24)}
    pads = {"": "null", ", bars 2.39": "pad=iw:ih+2*floor(ih/6):-1:-1", ", bars 1.33": "pad=iw+2*floor(iw/8):ih:-1:-1"}
    return kinds | {
        f"{name.split('-')[0]}{bars}, crf {crf}": _clip(name, pad, crf)
        for name in CLIPS
        for bars, pad in pads.items()
        for crf in QUALITIES
    }
