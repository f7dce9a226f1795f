"""CSV (RFC 4180), JSON lines and Parquet: a row a shot, the failed ones with their reason."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from qwen_shots.client.exports.text import one_line
from qwen_shots.client.selection import ERROR, MODEL, NUMBERS, TEXTS, score_names, values_of
from qwen_shots.client.store import ShotRecord
from qwen_shots.errors import InvalidInput

# A spreadsheet runs a cell that begins so; some take the wide forms of the signs too.
FORMULA_STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")

_CONTROLS = re.compile("[\x7f-\x9f\u2028\u2029]")


def to_csv(shots: Sequence[ShotRecord], film: Sequence[ShotRecord] = (), model: str | None = None) -> str:
    """A header and a row a shot, lines ended as RFC 4180 has it.

    Each text is one line without control characters; one that a spreadsheet would take for a formula gets an
    apostrophe before it. So do the names of attributes, which come from a server.

    Args:
        shots: the rows.
        film: more shots whose attributes are columns, so that a selection has the film's even where it is empty.
        model: which model answered; None where that is unknown.
    """
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    columns = _columns([*film, *shots])
    writer.writerow([_cell(name) for name in columns])
    writer.writerows([_cell(row.get(name)) for name in columns] for row in _rows(shots, model))
    return buffer.getvalue()


def to_tsv(shots: Sequence[ShotRecord], film: Sequence[ShotRecord] = (), model: str | None = None) -> str:
    """The columns of the CSV for `cut`, `sort` and `awk`: a line a shot, a tab between values, nothing quoted."""
    columns = _columns([*film, *shots])
    lines = [[one_line(name) for name in columns]]
    lines += [[_word(row.get(name)) for name in columns] for row in _rows(shots, model)]
    return "".join("\t".join(line) + "\n" for line in lines)


def to_jsonl(shots: Sequence[ShotRecord], model: str | None = None) -> str:
    """A JSON object a line, with the evidence where it was asked for."""
    lines = "".join(f"{json.dumps(_object(shot, model), ensure_ascii=False)}\n" for shot in shots)
    # JSON need not escape these (RFC 8259, section 7), and a terminal may take them for commands.
    return _CONTROLS.sub(lambda sign: f"\\u{ord(sign[0]):04x}", lines)


def to_parquet(shots: Sequence[ShotRecord], film: Sequence[ShotRecord] = (), model: str | None = None) -> bytes:
    """The columns of the CSV, with types.

    Raises:
        InvalidInput: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise InvalidInput("Parquet needs pyarrow: pip install pyarrow") from None
    kinds = {name: pa.string() for name in (*TEXTS, ERROR, MODEL)} | {"shot": pa.int64()}
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in _columns([*film, *shots])])
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(_rows(shots, model), schema), buffer)
    return buffer.getvalue()


def _columns(shots: Sequence[ShotRecord]) -> list[str]:
    return [*NUMBERS, *TEXTS, *score_names(shots).values(), ERROR, MODEL]


def _rows(shots: Sequence[ShotRecord], model: str | None) -> list[dict[str, float | str | None]]:
    """The model is named where there is an answer."""
    return [
        {
            **values_of(shot),
            ERROR: f"{shot.error.title}: {shot.error.detail}" if shot.error else None,
            MODEL: model if shot.attempts else None,
        }
        for shot in shots
    ]


def _cell(value: float | str | None) -> float | str | None:
    if not isinstance(value, str):
        return value
    text = one_line(value)
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def _word(value: float | str | None) -> str:
    return "" if value is None else one_line(str(value))


def _object(shot: ShotRecord, model: str | None) -> dict[str, Any]:
    return {
        **{name: value for name, value in values_of(shot).items() if name in {*NUMBERS, *TEXTS}},
        "scores": dict(shot.scores),
        "evidence": shot.evidence.model_dump() if shot.evidence else None,
        "error": asdict(shot.error) if shot.error else None,
        MODEL: model if shot.attempts else None,
    }
