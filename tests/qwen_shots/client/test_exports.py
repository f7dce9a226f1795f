"""Each export read back by a parser that is not ours, with odd captions, at many rates, and with 1,500 shots."""

from __future__ import annotations

import csv
import html
import io
import json
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import opentimelineio as otio
import pycmx
import pytest
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from qwen_shots.client.exports.cutlist import CutList, film_cuts, selected_cuts, timebase_of
from qwen_shots.client.exports.edl import to_edls
from qwen_shots.client.exports.fcpxml import to_fcpxml
from qwen_shots.client.exports.otio import to_otio
from qwen_shots.client.exports.tables import to_csv, to_jsonl, to_parquet, to_tsv
from qwen_shots.client.exports.text import one_line
from qwen_shots.client.exports.webvtt import to_webvtt
from qwen_shots.client.store import ErrorRecord, FilmRecord, ShotRecord

ODD = [
    "A face, “close”.",
    'He says "stop", and\r\ngoes; a\nnew line',
    "00:01 --> 00:02 & <b>bold</b> ]]> &amp;",
    "🎬 émigré 夜",
    "bell \x07, separator \u2028, tab \t.",
    "=1+1",
]
NTSC = Fraction(30_000, 1001)
SCORES = {"suspense": 0.25, "motion": 1.0}


def film(rate: Fraction = Fraction(24), start: str | None = None) -> FilmRecord:
    return FilmRecord(Path("/films/a film & more.mp4"), 1, "f", 20.0, rate, start, 854, 480, "adaptive")


def shots(captions: list[str], seconds: Fraction = Fraction(2)) -> list[ShotRecord]:
    borders = [float(seconds * n) for n in range(len(captions) + 1)]
    return [
        ShotRecord(n + 1, borders[n], borders[n + 1], 0, 0, caption=caption, scores=SCORES, audio_class="music")
        for n, caption in enumerate(captions)
    ]


FAILED = ShotRecord(7, 12.0, 20.0, 0, 0, error=ErrorRecord("urn:x", "It failed", "of something"))
ALL = [*shots(ODD), FAILED]


def cut(*, start: str | None = None) -> CutList:
    return film_cuts(film(), ALL, timebase_of(film()), start)


# --- tables and captions ----------------------------------------------------------------------------------------------


def test_csv() -> None:
    text = to_csv(ALL)
    rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert [row["caption"] for row in rows] == [*map(one_line, ODD[:5]), "'=1+1", ""]
    assert rows[0]["suspense"] == "0.25"
    assert rows[6]["error"] == "It failed: of something"
    assert text.split("\r\n")[0] == "shot,start,end,duration,name,caption,audio,suspense,motion,error,model"


STEERING = "\x1b]0;title\x07 \x9b31m \u202eback\u2066 line\r\nbreak\ttab \x00end"


@pytest.mark.parametrize("write", [to_csv, to_tsv, to_jsonl, to_webvtt])
def test_nothing_in_a_table_steers_a_terminal_or_a_spreadsheet(write: Callable[..., str]) -> None:
    """Names of attributes, captions, errors and the model's name all come from a server."""
    names = {STEERING: 0.5, "=cmd|' /C calc'!A0": 0.25, " +1": 1.0, 'a,"b"': 0.0}
    shot = replace(ALL[0], name=STEERING, caption=f" @{STEERING}", scores=names, attempts=1)
    error = ErrorRecord("urn:x", STEERING, STEERING)
    failed = replace(FAILED, error=error, attempts=1)
    text = write([shot, failed], model=f"{STEERING}@1")
    signs = {sign for sign in text if unicodedata.category(sign) == "Cc"}
    assert signs <= {"\r", "\n", "\t"}
    if write is to_csv:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        assert len(rows) == 3
        assert {len(row) for row in rows} == {13}
        cells = [cell for row in rows for cell in row]
        assert not [cell for cell in cells if cell.lstrip().startswith(("=", "+", "-", "@"))]
        assert not [cell for cell in cells if "\n" in cell or "\r" in cell or "\t" in cell]
    if write is to_tsv:
        assert {line.count("\t") for line in text.splitlines()} == {12}
        assert "\u202e" not in text
    if write is to_jsonl:  # escaped, not left out
        assert json.loads(text.splitlines()[0])["caption"] == f" @{STEERING}"


def test_every_export_names_the_model() -> None:
    """Where there is an answer; of a folder of an earlier version none is made up."""
    answered = [replace(shot, attempts=1) for shot in ALL[:2]] + [replace(ALL[2], caption=None, scores={})]
    for model in ("a/model@0123", None):
        cuts = film_cuts(replace(film(), model=model), answered, timebase_of(film()))
        rows = list(csv.DictReader(io.StringIO(to_csv(answered, model=model), newline="")))
        assert [row["model"] for row in rows] == [model or "", model or "", ""]
        lines = [json.loads(line)["model"] for line in to_jsonl(answered, model).splitlines()]
        table = parquet.read_table(io.BytesIO(to_parquet(answered, model=model)))
        assert lines == table["model"].to_pylist() == [model, model, None]
        assert webvtt.from_string(to_webvtt(answered, model)).captions[0].start == "00:00:00.000"
        assert ("NOTE Model: a/model@0123\n" in to_webvtt(answered, model)) == bool(model)
        (edl,) = to_edls(cuts)
        assert edl.count("* MODEL: a/model@0123") == (3 if model else 0)
        assert len(events(edl)) == 3
        timeline = otio.adapters.read_from_string(to_otio(cuts), "otio_json")
        assert timeline.metadata["qwen_shots"]["model"] == model
        asset = ET.fromstring(to_fcpxml(cuts)).find(".//asset")
        assert asset is not None
        assert [md.attrib["value"] for md in asset.iter("md")] == ([model] if model else [])


def test_an_attribute_may_be_called_as_the_column_of_errors() -> None:
    shot = replace(ALL[0], scores={"error": 0.5})
    (row,) = csv.DictReader(io.StringIO(to_csv([shot]), newline=""))
    assert (row["score_error"], row["error"]) == ("0.5", "")
    assert parquet.read_table(io.BytesIO(to_parquet([shot])))["score_error"].to_pylist() == [0.5]


def test_jsonl() -> None:
    rows = [json.loads(line) for line in to_jsonl(ALL).rstrip("\n").split("\n")]
    assert [row["caption"] for row in rows] == [*ODD, None]
    assert rows[1]["scores"] == SCORES
    assert rows[6]["error"] == {"type": "urn:x", "title": "It failed", "detail": "of something"}


def test_parquet() -> None:
    table = parquet.read_table(io.BytesIO(to_parquet(ALL)))
    assert table["caption"].to_pylist() == [*ODD, None]
    assert table["suspense"].to_pylist() == [0.25] * 6 + [None]
    assert str(table.schema.field("shot").type) == "int64"
    assert str(table.schema.field("motion").type) == "double"


def test_webvtt() -> None:
    cues = webvtt.from_string(to_webvtt(ALL)).captions
    assert [html.unescape(cue.raw_text) for cue in cues] == [one_line(caption) for caption in ODD]
    assert [(cue.identifier, cue.start, cue.end) for cue in cues][1] == ("2", "00:00:02.000", "00:00:04.000")


# --- timelines --------------------------------------------------------------------------------------------------------


def events(text: str) -> list[Any]:
    return list(pycmx.parse_cmx3600(io.StringIO(text)).events)


def test_edl_of_the_film() -> None:
    (text,) = to_edls(cut(start="10:00:00:00"))
    found = events(text)
    assert len(found) == 7
    edit = found[1].edits[0]
    assert (edit.source_in, edit.source_out) == ("00:00:02:00", "00:00:04:00")
    assert (edit.record_in, edit.record_out) == ("10:00:02:00", "10:00:04:00")
    assert edit.clip_name == "a film & more.mp4"
    timeline = otio.adapters.read_from_string(text, "cmx_3600", rate=24)
    clips = list(timeline.find_clips())
    assert [clip.source_range.duration.value for clip in clips] == [48] * 6 + [192]
    told = [clip.metadata["cmx_3600"]["comments"] for clip in clips]
    assert [comments[1] for comments in told[:6]] == [f"COMMENT: {one_line(caption)}" for caption in ODD]
    assert list(told[0][2:]) == ["SUSPENSE: 0.2500", "MOTION: 1.0000"]


@pytest.mark.parametrize(
    ("drop", "first", "second"),
    [(None, "01:00:59;28", "01:01:00;02"), (True, "01:00:59;28", "01:01:00;02"), (False, "01:00:59:28", "01:01:00:00")],
)
def test_edl_of_a_selection(drop: bool | None, first: str, second: str) -> None:
    tape = film(NTSC, "00:59:59;28")
    base = timebase_of(tape, drop=drop)
    # Two frames and one of the middle, laid the other way round, from just before a minute on.
    picked = shots(["a", "b", "c"], Fraction(2, 1) / NTSC)[1:][::-1]
    (text,) = to_edls(selected_cuts(tape, picked, base, first))
    assert ("FCM: DROP FRAME" in text, "FCM: NON-DROP FRAME" in text) == (base.drop, not base.drop)
    edits = [event.edits[0] for event in events(text)]
    assert [edit.record_in for edit in edits] == [first, second]
    assert edits[0].record_out == second
    own = ["01:00:00;02", "01:00:00;00"] if base.drop else ["00:59:56:14", "00:59:56:12"]
    assert [edit.source_in for edit in edits] == own


def test_edls_hold_999_events_each() -> None:
    many = shots([f"shot {n}" for n in range(1500)], Fraction(3001, 1000))
    long = replace(film(NTSC), duration=many[-1].end)
    cuts = film_cuts(long, many, timebase_of(long, drop=True))
    texts = to_edls(cuts)
    found = [events(text) for text in texts]
    assert [len(each) for each in found] == [999, 501]
    assert [each[0].number for each in found] == [1, 1]
    edits = [event.edits[0] for each in found for event in each]
    assert all(one.record_out == other.record_in for one, other in zip(edits, edits[1:], strict=False))
    assert cuts.timebase.parse(edits[-1].record_out) == cuts.timebase.frame_at(long.duration)
    timeline = otio.adapters.read_from_string(to_otio(cuts), "otio_json")
    assert timeline.duration().value == cuts.length
    assert len(ET.fromstring(to_fcpxml(cuts)).findall(".//asset-clip")) == 1500


def test_otio() -> None:
    timeline = otio.adapters.read_from_string(to_otio(cut(start="01:00:00:00")), "otio_json")
    assert timeline.global_start_time == otio.opentime.RationalTime(86_400, 24)
    clips = list(timeline.find_clips())
    assert [clip.metadata["qwen_shots"]["caption"] for clip in clips] == [*map(one_line, ODD), None]
    assert dict(clips[0].metadata["qwen_shots"]["scores"]) == SCORES
    assert [clip.markers[0].name for clip in clips] == [*(one_line(caption) for caption in ODD), "Shot 7"]
    assert clips[1].source_range.start_time == otio.opentime.RationalTime(48, 24)
    assert clips[1].media_reference.target_url == "file:///films/a%20film%20%26%20more.mp4"
    assert clips[1].media_reference.available_range.duration.value == 480


def test_what_lies_between_given_shots_stays_a_gap() -> None:
    cuts = film_cuts(film(), [ALL[1], ALL[4]], timebase_of(film()))
    timeline = otio.adapters.read_from_string(to_otio(cuts), "otio_json")
    kinds = [(type(item).__name__, item.duration().value) for item in timeline.tracks[0]]
    assert kinds == [("Gap", 48), ("Clip", 48), ("Gap", 96), ("Clip", 48)]
    spine = ET.fromstring(to_fcpxml(cuts)).find(".//spine")
    assert spine is not None
    assert [(each.tag, each.get("offset"), each.get("duration")) for each in spine] == [
        ("gap", "0s", "2s"), ("asset-clip", "2s", "2s"), ("gap", "4s", "4s"), ("asset-clip", "8s", "2s"),
    ]  # fmt: skip


def test_fcpxml_by_opentimelineios_adapter() -> None:
    (timeline,) = otio.adapters.read_from_string(to_fcpxml(cut()), "fcpx_xml")
    clips = list(timeline.find_clips())
    assert [clip.source_range.start_time.to_seconds() for clip in clips] == [0, 2, 4, 6, 8, 10, 12]
    assert [clip.markers[0].name for clip in clips[:6]] == [one_line(caption) for caption in ODD]


@pytest.mark.parametrize(
    ("rate", "start", "first"),
    [
        (Fraction(30), "16:37:10;02", Fraction(298_851, 5)),  # a camera that drops frames at 30: Final Cut's own value
        (Fraction(589, 20), None, Fraction(0)),  # a phone's average, in a folder of an earlier version
        (Fraction(25), "23:59:59:00", Fraction(86_399)),  # over midnight
    ],
)
def test_fcpxml_of_odd_films_by_opentimelineios_adapter(rate: Fraction, start: str | None, first: Fraction) -> None:
    made = film(rate, start)
    (timeline,) = otio.adapters.read_from_string(to_fcpxml(film_cuts(made, ALL, timebase_of(made))), "fcpx_xml")
    seconds = [clip.source_range.start_time.to_seconds() for clip in timeline.find_clips()]
    assert seconds == pytest.approx([float(first) + after for after in (0, 2, 4, 6, 8, 10, 12)])


@pytest.mark.parametrize("rate", [Fraction("23.976"), NTSC, Fraction(25), Fraction(60_000, 1001)])
def test_fcpxml_times_are_whole_frames(rate: Fraction) -> None:
    made = film(rate, "01:00:00:00")
    root = ET.fromstring(to_fcpxml(selected_cuts(made, shots(ODD), timebase_of(made))))
    base = timebase_of(made)
    ends = Fraction(0)
    for clip in root.iter("asset-clip"):
        start, offset, length = (Fraction(clip.attrib[name][:-1]) for name in ("start", "offset", "duration"))
        assert all((each * base.rate).denominator == 1 for each in (start, offset, length))
        assert not ends or offset == ends
        ends = offset + length
    frame = root.find(".//format")
    assert frame is not None
    assert Fraction(frame.attrib["frameDuration"][:-1]) == 1 / base.rate


@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
@settings(max_examples=50)
def test_any_captions(captions: list[str]) -> None:
    told = shots(captions)
    cuts = film_cuts(film(), told, timebase_of(film()))
    rows = csv.DictReader(io.StringIO(to_csv(told), newline=""), strict=True)
    lines = [one_line(caption) for caption in captions]
    assert [row["caption"].removeprefix("'") for row in rows] == [line.removeprefix("'") for line in lines]
    assert [json.loads(line)["caption"] for line in to_jsonl(told).rstrip("\n").split("\n")] == captions
    (text,) = to_edls(cuts)
    assert len(events(text)) == len(captions)
    root = ET.fromstring(to_fcpxml(cuts).encode())
    notes = [note.text or "" for note in root.iter("note")]
    assert notes == [one_line(caption) for caption in captions if caption]
    read = otio.adapters.read_from_string(to_otio(cuts), "otio_json")
    assert [clip.metadata["qwen_shots"]["caption"] for clip in read.find_clips()] == lines
    cues = webvtt.from_string(to_webvtt(told)).captions
    assert [html.unescape(cue.raw_text) for cue in cues] == [line for line in lines if line]
