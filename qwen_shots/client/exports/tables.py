"""CSV (RFC 4180), JSON lines and Parquet: a row a shot, the failed ones with their reason."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from qwen_shots.client.exports.text import one_line
from qwen_shots.client.selection import ERROR, NUMBERS, TEXTS, score_names, values_of
from qwen_shots.client.store import ShotRecord
from qwen_shots.errors import InvalidInput

# A spreadsheet runs a cell that begins so.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def to_csv(shots: Sequence[ShotRecord], film: Sequence[ShotRecord] = ()) -> str:
    """A header and a row a shot, lines ended as RFC 4180 has it.

    A text that a spreadsheet would take for a formula gets an apostrophe before it.

    Args:
        shots: the rows.
        film: more shots whose attributes are columns, so that a selection has the film's even where it is empty.
    """
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, _columns([*film, *shots]))
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in _row(shot).items()} for shot in shots)
    return buffer.getvalue()


def to_tsv(shots: Sequence[ShotRecord], film: Sequence[ShotRecord] = ()) -> str:
    """The columns of the CSV for `cut`, `sort` and `awk`: a line a shot, a tab between values, nothing quoted."""
    columns = _columns([*film, *shots])
    rows = [columns, *([_word(_row(shot).get(name)) for name in columns] for shot in shots)]
    return "".join("\t".join(row) + "\n" for row in rows)


def to_jsonl(shots: Sequence[ShotRecord]) -> str:
    """A JSON object a line, with the evidence where it was asked for."""
    return "".join(f"{json.dumps(_object(shot), ensure_ascii=False)}\n" for shot in shots)


def to_parquet(shots: Sequence[ShotRecord], film: Sequence[ShotRecord] = ()) -> bytes:
    """The columns of the CSV, with types.

    Raises:
        InvalidInput: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise InvalidInput("Parquet needs pyarrow: pip install pyarrow") from None
    kinds = {name: pa.string() for name in (*TEXTS, ERROR)} | {"shot": pa.int64()}
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in _columns([*film, *shots])])
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist([_row(shot) for shot in shots], schema), buffer)
    return buffer.getvalue()


def _columns(shots: Sequence[ShotRecord]) -> list[str]:
    return [*NUMBERS, *TEXTS, *score_names(shots).values(), ERROR]


def _row(shot: ShotRecord) -> dict[str, float | str | None]:
    return {**values_of(shot), ERROR: f"{shot.error.title}: {shot.error.detail}" if shot.error else None}


def _cell(value: float | str | None) -> float | str | None:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def _word(value: float | str | None) -> str:
    return "" if value is None else one_line(str(value))


def _object(shot: ShotRecord) -> dict[str, Any]:
    return {
        **{name: value for name, value in values_of(shot).items() if name in {*NUMBERS, *TEXTS}},
        "scores": dict(shot.scores),
        "evidence": shot.evidence.model_dump() if shot.evidence else None,
        "error": asdict(shot.error) if shot.error else None,
    }
