"""Draw the model card's picture of the training: `python -m training.curves`."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

ROOT = Path(__file__).parent.parent


def draw_curves(curves: Path, picture: Path) -> None:
    """Draw losses and held-out figures over the steps.

    Args:
        curves: the file that the training wrote.
        picture: SVG file to write.
    """
    mpl.rcParams["svg.hashsalt"] = "qwen-shots"  # the same picture for the same figures
    points = json.loads(curves.read_text())
    losses = [point for point in points if "scores" in point]
    judged = [point for point in points if "spearman" in point]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for name in ("scores", "caption"):
        left.plot([p["step"] for p in losses], [p[name] for p in losses], label=name, linewidth=0.8)
    left.set(yscale="log", xlabel="step", title="training loss, nats")
    left.legend()
    for name in judged[0]["spearman"]:
        right.plot([p["step"] for p in judged], [p["spearman"][name] for p in judged], label=name)
    right.plot([p["step"] for p in judged], [p["caption_words"] for p in judged], "k:", label="caption words right")
    right.set(ylim=(0, 1.02), xlabel="step", title="held-out scenes: Spearman correlation with the truth")
    right.legend(loc="lower right", fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(picture, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    mpl.use("svg")
    draw_curves(ROOT / "training/results/curves.json", ROOT / "models/curves.svg")
