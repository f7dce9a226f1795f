"""Shot lists as tables: CSV, or the same with semicolons or tabs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from qwen_shots.client.lists.film_time import FilmTime, InvalidShotList, Listed
from qwen_shots.errors import InvalidInput

# A table's columns, in lower case without blanks and underscores: ours, PySceneDetect's, and what people write. Seconds
# before timecodes, for they are exact.
START_COLUMNS = ("start", "starttime", "starttime(seconds)", "startseconds", "in", "sourcein", "starttimecode")
END_COLUMNS = ("end", "endtime", "endtime(seconds)", "endseconds", "out", "sourceout", "endtimecode")
NAME_COLUMNS = ("name", "shot", "shotid", "shotname", "clipname", "scenenumber", "number")

# Where numbers have a decimal comma, spreadsheets put something else between cells.
DELIMITERS = ",;\t"


@dataclass(frozen=True, slots=True)
class _Columns:
    """The places of start, end and name."""

    start: int
    end: int
    name: int | None


def from_table(file: str, text: str, time: FilmTime) -> list[Listed]:
    """The rows below the header.

    Raises:
        InvalidShotList: it has no header, or a cell is wrong.
    """
    for delimiter in DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        try:
            if columns := _columns(reader):
                parse = partial(time.parse, decimal_comma=delimiter != ",")
                rows = ((reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells))
                return [_row(cells, columns, f"line {line}", file, parse) for line, cells in rows]
        except csv.Error:
            raise InvalidShotList(
                f"{file} is no table (line {reader.line_num}: a cell goes over {csv.field_size_limit()} characters or "
                "holds what is not text; is a quotation mark missing?)"
            ) from None
    raise InvalidShotList(f"{file} has no header with the columns start and end")


def _columns(lines: Iterator[list[str]]) -> _Columns | None:
    """The header is the first line that names them (PySceneDetect writes one before it)."""
    for cells in lines:
        heads = [re.sub(r"[\s_]", "", cell.lower()) for cell in cells]
        start, end, name = (
            next((heads.index(column) for column in columns if column in heads), None)
            for columns in (START_COLUMNS, END_COLUMNS, NAME_COLUMNS)
        )
        if start is not None and end is not None:
            return _Columns(start, end, name)
    return None


def _row(cells: Sequence[str], columns: _Columns, place: str, file: str, parse: Callable[[str], float]) -> Listed:
    if len(cells) <= max(columns.start, columns.end, columns.name or 0):
        raise InvalidShotList(f"{file}, {place}: {len(cells)} cells, fewer than the header has")

    def seconds(cell: str) -> float:
        try:
            return parse(cell)
        except InvalidInput as error:
            raise InvalidShotList(
                f"{file}, {place}: {cell[:40]!r} is no time ({error.detail}); allowed are seconds (12.5), a clock's "
                "time (0:00:12.5) and timecode (01:00:00:00)"
            ) from None

    name = cells[columns.name].strip() if columns.name is not None else ""
    return Listed(seconds(cells[columns.start]), seconds(cells[columns.end]), name or None, place)
