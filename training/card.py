"""The model card's tables made from the figures that were measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- figures: python -m training.evaluate -->", "<!-- end of figures -->"

# What the scores and captions should reach, on kinds of scene that were trained on and on others.
BARS = {"darkness": (0.95, 0.85), "motion": (0.95, 0.85)}
OTHER_BARS = (0.85, 0.6)
NAMED_BARS = {"time of day": (0.85, 0.75), "camera": (0.85, 0.75), "place": (0.85, None), "subject": (0.85, None)}
FILM_BARS = {"darkness": 0.8, "motion": 0.6}
LARGEST_MOVE, SECONDS = 0.02, 1.0

Figures = dict[str, Any]


def write_tables(card: Path, figures: Figures) -> None:
    """Put the tables between the marks of the card.

    Raises:
        ValueError: the card has no marks.
    """
    before, _, rest = card.read_text(encoding="utf-8").partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{card} has no marks {BEGIN} and {END}")
    text = "\n\n".join([_scores(figures), _captions(figures), _film(figures), _arithmetic(figures)])
    card.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def _scores(figures: Figures) -> str:
    seen, unseen = figures["seen"], figures["unseen"]
    rows = []
    for name in seen["spearman"]:
        bars = BARS.get(name, OTHER_BARS)
        rows.append([name, *_measured(seen["spearman"][name], bars[0]), *_measured(unseen["spearman"][name], bars[1])])
    heading = (
        "Spearman correlation of the model's own scores with the truth, "
        f"over {seen['shots']} shots of kinds trained on (new seeds) and {unseen['shots']} of kinds never trained on "
        "(desert, mountains, bridge):"
    )
    return f"{heading}\n\n{_table(['score', 'trained kinds', 'bar', 'new kinds', 'bar'], rows)}"


def _captions(figures: Figures) -> str:
    seen, unseen = figures["seen"]["named"], figures["unseen"]["named"]
    rows = []
    for name, bars in NAMED_BARS.items():
        # It can't name a place that it never saw.
        new = ["", ""] if name == "place" else _percent(unseen[name], bars[1])
        rows.append([name, *_percent(seen[name], bars[0]), *new])
    return f"Captions that name it rightly:\n\n{_table(['what', 'trained kinds', 'bar', 'new kinds', 'bar'], rows)}"


def _film(figures: Figures) -> str:
    rows = [
        [
            f"{name} with {what}",
            *_measured(figures["by_shot"][name], FILM_BARS[name]),
            f"{figures['by_piece'][name]:.3f}",
        ]
        for name, what in (("darkness", "measured luminance"), ("motion", "measured optical flow"))
    ]
    pieces = f"{figures['pieces']} pieces of 1.5 s"
    said = [
        [one["film"], f"{one['shot']['start']:.1f}", one["caption"], f"{one['scores']['darkness']:.2f}",
         f"{one['scores']['motion']:.2f}"]
        for one in figures["shots"]
    ]  # fmt: skip
    return (
        "Real film, none of it trained on (both clips of `samples/`), Spearman correlation over its shots and over "
        f"pieces of them:\n\n{_table(['', f'{len(said)} shots', 'bar', pieces], rows)}\n\n"
        f"What it says of these shots:\n\n{_table(['film', 'second', 'caption', 'darkness', 'motion'], said)}"
    )


def _arithmetic(figures: Figures) -> str:
    errors = [
        [name, f"{figures['seen']['error'][name]:.4f}", f"{figures['unseen']['error'][name]:.4f}"]
        for name in figures["seen"]["error"]
    ]
    move, seconds = figures["largest_move"], figures["seconds"]
    told = _marked(f"{move['shot']:.4f}", good=move["shot"] <= LARGEST_MOVE)
    return (
        f"Mean absolute error by way of reading the answer:\n\n{_table(['', 'trained kinds', 'new kinds'], errors)}\n\n"
        f"float32 against bfloat16 on the CPU: no score of a shot moves by more than {told}, "
        f"none of a single frame by more than {move['frame']:.4f} (bar {LARGEST_MOVE}).\n\n"
        f"One shot alone, three key frames, caption and scores, on {figures['threads']} CPU threads in float32: "
        f"{seconds:.2f} s (bar {SECONDS:.0f} s)."
    )


def _measured(value: float, bar: float) -> list[str]:
    return [_marked(f"{value:.3f}", good=value >= bar), f"{bar}"]


def _percent(value: float, bar: float | None) -> list[str]:
    if bar is None:
        return [f"{value:.1%}", ""]
    return [_marked(f"{value:.1%}", good=value >= bar), f"{bar:.0%}"]


def _marked(text: str, *, good: bool) -> str:
    return text if good else f"**{text} (missed)**"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
