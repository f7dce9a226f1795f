"""A batch of scenes to 8-bit frames."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from training.film.figures import paint_subject
from training.film.noise import Sheet
from training.film.places import paint_place
from training.film.scenes import ALL_PLACES, SUBJECTS, Scenes
from training.film.stock import INDOOR, expose, light_up
from training.film.view import View


class Renderer:
    """Paints shots on one device.

    Args:
        device: where to paint.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = device
        self._sheet = Sheet(device)

    @torch.no_grad()
    def frames(self, scenes: Scenes, height: int, width: int) -> Tensor:
        """Paint all shots.

        Args:
            scenes: B shots of T frames.
            height: pixels.
            width: pixels; the scenes must have been drawn for this aspect.

        Returns:
            uint8 RGB of shape (B, T, 3, height, width), on the device.
        """
        frames = scenes.path.x.shape[1]
        film = torch.empty(len(scenes), frames, 3, height, width, dtype=torch.uint8, device=self._device)
        kinds = scenes.place * len(SUBJECTS) + scenes.subject
        # Shots of one place and subject are painted together.
        for kind in np.unique(kinds):
            rows = np.flatnonzero(kinds == kind)
            view = View(scenes.subset(rows), height, width, self._sheet, self._device)
            place, subject = ALL_PLACES[kind // len(SUBJECTS)], SUBJECTS[kind % len(SUBJECTS)]
            painted = paint_subject(subject, view, paint_place(place, view))
            shown = expose(view, light_up(view, painted, indoors=place in INDOOR))
            film[torch.as_tensor(rows, device=self._device)] = shown
        return film
