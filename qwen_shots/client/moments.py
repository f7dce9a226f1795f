"""A moment of the film as players read it: in whole milliseconds, and never before the picture that is meant."""

from __future__ import annotations

import math


def milliseconds(start: float) -> int:
    """The first whole millisecond at which a player shows the picture that starts then.

    Rounded to the nearest one, half of all links would show the picture before. Chromium has pictures at the nearest
    microsecond, and cuts off what comes after the microseconds of a time that it is asked for.

    Args:
        start: seconds on the film's clock (see `film`).
    """
    picture = round(start * 1e6)
    found = math.ceil(picture / 1000)
    return found if int(found / 1000 * 1e6) >= picture else found + 1
