"""A decoded picture as a player shows it: SDR colours, square pixels, upright."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qwen_shots.client import hdr
from qwen_shots.light import BT709, BT2020, HLG, PQ, PRIMARIES

if TYPE_CHECKING:
    from av import VideoFrame
    from typing_extensions import Buffer

    from qwen_shots.client.film import FilmFrame

# Code points of ITU-T H.273.
UNSPECIFIED = 2
BT601 = 6
MATRICES = {0: "RGB", 1: "BT.709", 4: "FCC", 5: "BT.601", 6: "BT.601", 7: "SMPTE 240M", 9: "BT.2020", 10: "BT.2020"}
# Films larger than this are in BT.709 where they don't say: mpv's and QuickTime's rule. Browsers look at the height
# alone, so that a wide film of few lines, such as 1280 x 536, looks otherwise in them.
HD_WIDTH, HD_HEIGHT = 1280, 720
SD_LINES = 576


@dataclass(frozen=True, slots=True)
class Colour:
    """What a picture's numbers mean, by the code points of ITU-T H.273; nothing is left unspecified.

    Attributes:
        matrix: one of MATRICES.
        primaries: one of `qwen_shots.light.PRIMARIES`.
        transfer: PQ, HLG, or any other, which is SDR's.
        doubtful: whether the film doesn't say its matrix, and players disagree about films of its size.
    """

    matrix: int
    primaries: int
    transfer: int
    doubtful: bool = False


def colour_of(picture: VideoFrame) -> Colour:
    """What the file says of a picture's colours, and what players assume where it doesn't."""
    bt2020 = picture.color_primaries == BT2020 or picture.color_trc in (HLG, PQ)
    wide = BT2020 if bt2020 or picture.colorspace in (9, 10) else BT709
    primaries = picture.color_primaries if picture.color_primaries in PRIMARIES else wide
    if picture.format.is_rgb:
        return Colour(0, primaries, picture.color_trc)
    if picture.colorspace in MATRICES.keys() - {0}:
        return Colour(picture.colorspace, primaries, picture.color_trc)
    if bt2020:
        return Colour(BT2020, primaries, picture.color_trc)
    is_hd = picture.width >= HD_WIDTH or picture.height > SD_LINES
    doubtful = is_hd and picture.height < HD_HEIGHT
    return Colour(BT709 if is_hd else BT601, primaries, picture.color_trc, doubtful)


class Renderer:
    """Turns decoded pictures into RGB.

    One for a whole film: FFmpeg prepares its tables once, which costs as much as a picture.
    """

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()

    def show(
        self, picture: VideoFrame, size: tuple[int, int], interpolation: str = "BILINEAR", *, one_field: bool = False
    ) -> NDArray[np.uint8]:
        """The picture in SDR colours, upright and scaled.

        Args:
            picture: as decoded.
            size: (width, height) in pixels, upright; see `size_shown`.
            interpolation: one of PyAV's.
            one_field: of an interlaced picture take the first field only, so that nothing shows twice.

        Returns:
            (height, width, 3) RGB, 8 bits.
        """
        turn = _Turn.of(picture)
        width, height = size[::-1] if turn.on_its_side else size
        if not (one_field and picture.interlaced_frame):
            return turn.apply(self._rgb(picture, (width, height), interpolation))
        field = Image.fromarray(self._rgb(picture, (picture.width, picture.height), interpolation)[::2])
        return turn.apply(np.asarray(field.resize((width, height), Image.Resampling.BICUBIC)))

    def _rgb(self, picture: VideoFrame, size: tuple[int, int], interpolation: str) -> NDArray[np.uint8]:
        colour = colour_of(picture)
        if not hdr.is_wide(colour.primaries, colour.transfer):
            return self._reformat(picture, colour, size, "rgb24", interpolation).astype(np.uint8, copy=False)
        # Not rgb48le, which FFmpeg 8.0 makes wrong.
        deep = self._reformat(picture, colour, size, f"gbrp{hdr.BITS}le", interpolation)
        return hdr.to_sdr(deep.astype(np.uint16, copy=False), colour.primaries, colour.transfer)

    def _reformat(
        self, picture: VideoFrame, colour: Colour, size: tuple[int, int], pixels: str, interpolation: str
    ) -> NDArray[Any]:
        said = picture.colorspace, picture.color_primaries, picture.color_trc
        # FFmpeg's scaler refuses a picture whose other two have a reserved value, and needs neither.
        picture.colorspace, picture.color_primaries, picture.color_trc = colour.matrix, UNSPECIFIED, UNSPECIFIED
        try:
            return self._reformatter.reformat(picture, *size, pixels, interpolation=interpolation).to_ndarray()
        finally:
            picture.colorspace, picture.color_primaries, picture.color_trc = said


def size_shown(frame: FilmFrame) -> tuple[int, int]:
    """Width and height of a frame as a person sees it: square pixels, upright."""
    width, height = round(frame.picture.width * frame.aspect), frame.picture.height
    return (height, width) if _Turn.of(frame.picture).on_its_side else (width, height)


@dataclass(frozen=True, slots=True)
class _Turn:
    """A display matrix (ISO/IEC 14496-12, 6.2.2; H.264's SEI) as `ffmpeg` obeys it.

    Attributes:
        degrees: clockwise, whole, 0..359.
        matrix: a, b, c, d of x' = ax + cy, y' = bx + dy, with y pointing down.
    """

    degrees: int
    matrix: tuple[float, float, float, float]

    @classmethod
    def of(cls, picture: VideoFrame) -> _Turn:
        """Read a picture's matrix."""
        data = cast("Buffer | None", picture.side_data.get("DISPLAYMATRIX"))
        if data is None:
            return UNTURNED
        a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32) / 65536
        across, down = math.hypot(a, c), math.hypot(b, d)
        if not across or not down:
            return UNTURNED
        return cls(round(math.degrees(math.atan2(b / down, a / across))) % 360, (a, b, c, d))

    @property
    def on_its_side(self) -> bool:
        """Whether width and height change places."""
        return self.degrees in (90, 270)

    def apply(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn a picture: `configure_input_video_filter` of FFmpeg's fftools/ffmpeg_filter.c."""
        a, _, c, d = self.matrix
        if self.degrees == 90:
            return rgb.swapaxes(0, 1) if c > 0 else np.rot90(rgb, -1)
        if self.degrees == 270:
            return np.rot90(rgb, 2).swapaxes(0, 1) if c < 0 else np.rot90(rgb)
        if self.degrees in (0, 180):
            rows = slice(None, None, -1 if d < 0 else 1)
            columns = slice(None, None, -1 if self.degrees and a < 0 else 1)
            return rgb[rows, columns]
        return np.asarray(Image.fromarray(rgb).rotate(-self.degrees, Image.Resampling.BILINEAR))


UNTURNED = _Turn(0, (1.0, 0.0, 0.0, 1.0))
