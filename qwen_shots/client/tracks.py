"""Which tracks of a film are seen and heard."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import normalize

from qwen_shots.client.errors import NotAFilm, NoVideoStream

if TYPE_CHECKING:
    from av import AudioStream, VideoStream
    from av.container import InputContainer

# Formats in which mastering houses deliver each loudspeaker's sound as a mono track. Elsewhere, several tracks are
# alternatives.
DISCRETE_FORMATS = frozenset({"mxf", "mov,mp4,m4a,3gp,3g2,mj2"})

# Not every program that writes such a track sets its disposition. Stems of "commentary" and "audio description" in the
# languages of film titles; AD is the abbreviation on discs.
_COMMENTARY = (
    "[ck]omm?ent|yorum|bình luận",  # English, Germanic, Romance, Slavic, Finnish, Hungarian; Turkish; Vietnamese
    "комм?ент|σχόλι|σχολια|פרשנות|تعليق",
    "コメンタリ|副音声|评论|評論|评述|評述|코멘터리",
)
_DESCRIPTION = (
    "des[ck]r[iy]|hörfilm|bildbeschreibung|beschrijving|impaired|sehbehindert|malvoyant",
    "syns?tolk|kuvailutulkkaus|audiopopis|audionarráció|kirjeldustõlge|betimleme|mô tả âm thanh",
    "дескрип|аудиоописан|тифло|περιγραφ|תיאור|وصف",
    "音声ガイド|解説|解说|解說|口述影像|描述|해설",
)
_BESIDE = re.compile(rf"{'|'.join((*_COMMENTARY, *_DESCRIPTION))}|(?-i:\bAD\b)", re.IGNORECASE)


def picture_track(container: InputContainer, path: Path) -> VideoStream:
    """The film's own picture: of those that can be decoded the default one, no cover, no sign language.

    Raises:
        NoVideoStream: there is no moving picture.
        NotAFilm: no decoder knows its codec.
    """
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.timed_thumbnails
    moving = [stream for stream in container.streams.video if not stream.disposition & still]
    if not moving:
        raise NoVideoStream(f"{path.name} holds no moving picture")
    readable = [stream for stream in moving if stream.codec_context]
    if not readable:
        codec = _unknown_codec(container, moving[0])
        raise NotAFilm(f"the picture of {path.name} is in a codec that can't be decoded ({codec})")
    stream = min(readable, key=_side_role)
    stream.thread_type = "AUTO"
    return stream


def sound_tracks(container: InputContainer, video: VideoStream) -> tuple[AudioStream, ...]:
    """The tracks that are heard together with the picture; none for a silent film.

    That is the one that a player plays: of the picture's programme, one that can be decoded, the default one, no
    commentary or description. Where it is one of several discrete mono tracks, it is all of them.
    """
    readable = [stream for stream in _of_programme(container, video) if stream.codec_context]
    if not readable:
        return ()
    first = min(readable, key=_side_role)
    if container.format.name not in DISCRETE_FORMATS or first.channels != 1 or _is_beside(first):
        return (first,)
    return tuple(stream for stream in readable if _is_one_of_discrete(stream, first))


def undecodable_sound(container: InputContainer, video: VideoStream) -> list[str]:
    """The codecs of the programme's sound tracks that can't be decoded."""
    tracks = _of_programme(container, video)
    return sorted({_unknown_codec(container, stream) for stream in tracks if not stream.codec_context})


def _unknown_codec(container: InputContainer, stream: VideoStream | AudioStream) -> str:
    """The codec of a track that has no decoder: its name, or the file's code for it where FFmpeg has no name."""
    import av.logging

    # PyAV has no other access to it than FFmpeg's description of the file, which is logged.
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        described = container.dumps_format()  # type: ignore[attr-defined]
    finally:
        av.logging.set_level(level)
    found = re.search(rf"Stream #0:{stream.index}\b.*?: (?:Audio|Video): (\w+)(?: \((\w+) / )?", described)
    return next((name for name in found.groups()[::-1] if name), "unknown") if found else "unknown"


def _of_programme(container: InputContainer, video: VideoStream) -> list[AudioStream]:
    """The sound tracks of the picture's programme in a multiplex of several; elsewhere all.

    FFmpeg finds the best track beside another one within that one's programme, so two tracks that have the same best
    track beside them are of one programme.
    """
    best = container.streams.best("audio", related=video)
    return [stream for stream in container.streams.audio if container.streams.best("audio", related=stream) is best]


def _is_one_of_discrete(stream: AudioStream, first: AudioStream) -> bool:
    from av.stream import Disposition

    return (
        stream.channels == 1
        and stream.sample_rate == first.sample_rate
        and (stream.language or "und") == (first.language or "und")
        and (stream.disposition ^ first.disposition) | Disposition.default == Disposition.default
        and not _is_beside(stream)
    )


def _side_role(stream: VideoStream | AudioStream) -> tuple[bool, bool]:
    """The smaller, the more a track is the film itself; equal ones count in the file's order."""
    from av.stream import Disposition

    return _is_beside(stream), not stream.disposition & Disposition.default


def _is_beside(stream: VideoStream | AudioStream) -> bool:
    """Whether a track is a commentary, a description or the like."""
    from av.stream import Disposition

    roles = Disposition.comment | Disposition.visual_impaired | Disposition.hearing_impaired | Disposition.descriptions
    names = (stream.metadata.get(name, "") for name in ("title", "handler_name", "name", "track_name"))
    return bool(stream.disposition & roles) or any(_BESIDE.search(normalize("NFKC", name)) for name in names)
