"""Timelines of OpenTimelineIO: the clips of the picture, each by its place in the film."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from qwen_shots.client.extras import opentimelineio
from qwen_shots.client.lists.film_time import FilmTime, InvalidShotList, Listed

if TYPE_CHECKING:
    from opentimelineio.core import Composition, Item
    from opentimelineio.opentime import RationalTime, TimeRange
    from opentimelineio.schema import Clip, Timeline


def from_timeline(file: str, text: str, time: FilmTime) -> list[Listed]:
    """The clips that are shown. Disabled ones, titles and other generated pictures are left out.

    Raises:
        InvalidShotList: it is no timeline, or a clip says what no list of shots can hold.
        InvalidInput: OpenTimelineIO is not installed.
    """
    otio = opentimelineio()
    try:
        json.loads(text)  # OpenTimelineIO's own parser crashes on brackets that are nested without end
        timeline = otio.adapters.read_from_string(text, "otio_json")
        if not isinstance(timeline, otio.schema.Timeline):
            raise InvalidShotList(f"it holds no timeline, but a {type(timeline).__name__}")
        return _listed(timeline, time)
    except InvalidShotList as error:
        raise InvalidShotList(f"{file} can't be read: {error.detail}") from None
    except Exception:  # OpenTimelineIO raises errors of many kinds, ValueError among them
        raise InvalidShotList(f"{file} can't be read: it is no timeline that OpenTimelineIO can read") from None


def _listed(timeline: Timeline, time: FilmTime) -> list[Listed]:
    schema = opentimelineio().schema
    clips = [clip for track in timeline.video_tracks() for clip in track.find_clips()]
    for clip in clips:
        _range(clip)  # so that an error names the clip and not what holds it
    shown = _shown(timeline.tracks, _range(timeline.tracks)) if clips else ()
    return [
        _shot(clip, part, time)
        for clip, part in shown
        if not isinstance(clip.media_reference, schema.GeneratorReference)
    ]


# --- what is shown ---------------------------------------------------------------------------------------------------


def _shown(item: Item, part: TimeRange) -> Iterator[tuple[Clip, TimeRange]]:
    """The clips in a part of an item, each with the part of it that is shown, in the clip's own time."""
    otio = opentimelineio()
    if isinstance(item, otio.schema.Clip):
        yield item, part
        return
    if not isinstance(item, otio.core.Composition):
        return  # a gap
    if _speed(item) != 1:
        raise InvalidShotList(f"{_called(item)} is a nested sequence whose speed is changed; change that of its clips")
    for child, whole in _children(item):
        begins = max(part.start_time, whole.start_time)
        ends = min(part.end_time_exclusive(), whole.end_time_exclusive())
        if begins < ends:
            inside = _range(child).start_time + (begins - whole.start_time)
            yield from _shown(child, otio.opentime.TimeRange(inside, ends - begins))


def _children(parent: Composition) -> Iterator[tuple[Item, TimeRange]]:
    """What a track or stack shows of pictures, each with its place in the parent's own time."""
    otio = opentimelineio()
    one_by_one = isinstance(parent, otio.schema.Track)
    begins = otio.opentime.RationalTime()
    for child in parent:
        if isinstance(child, otio.schema.Transition):
            continue  # it lies over its neighbours and takes no time
        sound = isinstance(child, otio.schema.Track) and child.kind != otio.schema.TrackKind.Video
        if not sound and list(child.find_clips() if isinstance(child, otio.core.Composition) else [child]):
            length = _range(child).duration
            if child.enabled:
                yield child, otio.opentime.TimeRange(begins, length)
            begins = begins + length if one_by_one else begins


def _range(item: Item) -> TimeRange:
    try:
        shown = item.trimmed_range()
    except opentimelineio().exceptions.OTIOError:
        raise InvalidShotList(f"{_called(item)} says neither where it begins nor where it ends") from None
    times = (shown.start_time, shown.duration)
    if not all(math.isfinite(each.value) and math.isfinite(each.rate) and each.rate > 0 for each in times):
        raise InvalidShotList(f"{_called(item)} has times of a rate that is not above 0")
    return shown


def _speed(item: Item) -> float:
    """How fast it is played: 2 is twice as fast, 0 a freeze frame."""
    schema = opentimelineio().schema
    speed = 1.0
    for effect in item.effects:
        if isinstance(effect, schema.LinearTimeWarp):  # freeze frames are of that kind
            speed *= effect.time_scalar
        elif isinstance(effect, schema.TimeEffect):
            raise InvalidShotList(f"the speed of {_called(item)} is changed by an unknown effect")
    return speed


def _called(item: Item) -> str:
    return f"the {type(item).__name__.lower()} {item.name!r}"


# --- a clip ----------------------------------------------------------------------------------------------------------


def _shot(clip: Clip, part: TimeRange, time: FilmTime) -> Listed:
    speed = _speed(clip)
    if speed < 0 or not math.isfinite(speed):
        raise InvalidShotList(f"{_called(clip)} is played backwards; which part of the film it shows is not clear")
    whole = _range(clip).start_time
    first = _film_frame(clip, whole, time) + _frames(part.start_time - whole, time) * speed
    last = first + _frames(part.duration, time) * speed
    known = _known(clip)
    pictures = known.get("pictures")
    start_picture, end_picture = pictures if speed == 1 and pictures else (None, None)
    start = time.seconds(first, start_picture)
    end = time.seconds(last, end_picture) if speed else time.picture_after(start)
    # Ours are called so where the shot has no name.
    name = None if clip.name == f"Shot {known.get('shot')}" else clip.name or None
    return Listed(start, end, name, _called(clip), _medium(clip))


def _film_frame(clip: Clip, start: RationalTime, time: FilmTime) -> float:
    """The number of the film's frame at a time of the clip's medium."""
    media = clip.media_reference
    whole = media.available_range if media else None
    # Where the medium says when it begins, that is its first picture; a time outside of it is a timecode.
    if whole and whole.start_time.rate > 0 and whole.contains(start):
        return _frames(start, time) - _frames(whole.start_time, time)
    return time.after_midnight(_frames(start, time), time.base)


def _frames(length: RationalTime, time: FilmTime) -> float:
    """A length in the film's frames. 24 a second and 23.976 are the same frames, counted alike."""
    if round(length.rate) == time.base.nominal:
        return float(length.value)
    return float(length.value / length.rate * time.base.rate)


def _known(clip: Clip) -> dict[str, Any]:
    """What `exports.otio` wrote of the shot."""
    known = clip.metadata.get("qwen_shots")
    return dict(known) if known else {}


def _medium(clip: Clip) -> str | None:
    media = clip.media_reference
    return getattr(media, "target_url", None) or getattr(media, "name_prefix", None) or None
