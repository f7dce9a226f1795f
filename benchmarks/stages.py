"""Where the time of a shot goes, from JPEG to JSON: each stage alone, those of the device in a full batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

import analyzer
from benchmarks import limit, prepare
from engines.base import ShotPictures, ShotReading
from engines.qwen2vl.backbone import Qwen2VL
from engines.qwen2vl.preparing import Prepared
from engines.runner import ModelRunner
from qwen_shots import audio, fusion
from qwen_shots.schemas import Analysis
from serving import wire

HOST = "one CPU core"
JPEG_QUALITY = 90
REPEATS = 5

Times = dict[str, float]
"""Milliseconds a shot, by stage."""


def measure(runner: ModelRunner, shots: Sequence[ShotPictures], device: str) -> dict[str, Times]:
    """Time every stage, by where it runs.

    Args:
        runner: warm.
        shots: a full batch.
        device: "cuda" or "cpu".
    """
    return {HOST: _on_host(runner, shots), device: _on_device(runner, shots, device)}


def _on_host(runner: ModelRunner, shots: Sequence[ShotPictures]) -> Times:
    body = prepare.body_of(*prepare.SIZES["720p"], JPEG_QUALITY)
    sent = wire.parse_shot(wire.parse_json(body))
    measured = analyzer.measure_frames(analyzer.decode(sent, prepare.FIT).frames)
    batch = runner.prepare(shots)
    ran = runner.run(batch)
    (reading, *_) = runner.finish(batch, ran)
    assert isinstance(reading, ShotReading)
    assert sent.audio_features is not None
    sound = audio.classify(sent.audio_features)
    weigh = partial(fusion.fuse, temporal_weight=0.7, luminance_weight=0.5, audio_weight=0.3, sent=len(sent.images))
    scores, _ = weigh(reading.readings, measured, sound)
    analysis = Analysis(shot_id=sent.shot_id, caption=reading.caption, attributes=scores, evidence=None)
    alone: dict[str, Callable[[], object]] = {
        "read the JSON": lambda: wire.parse_shot(wire.parse_json(body)),
        "decode five 720p JPEGs, measure, scale": lambda: prepare.as_served(sent, prepare.FIT),
        "fuse": lambda: weigh(reading.readings, measured, sound),
        "write the JSON": analysis.model_dump_json,
    }
    together: dict[str, Callable[[], object]] = {
        "lay out the batch": lambda: runner.prepare(shots),
        "put the answers into words": lambda: runner.finish(batch, ran),
    }
    times = {name: 1e3 * limit.seconds_of(work, "cpu", REPEATS) for name, work in alone.items()}
    count = len(shots)
    return times | {name: 1e3 * limit.seconds_of(work, "cpu", REPEATS) / count for name, work in together.items()}


@torch.inference_mode()
def _on_device(runner: ModelRunner, shots: Sequence[ShotPictures], device: str) -> Times:
    backbone = runner.backbone
    assert isinstance(backbone, Qwen2VL)
    batch = backbone.prepare(shots)
    steps = _device_steps(backbone, batch)
    return {name: 1e3 * limit.seconds_of(work, device, REPEATS) / len(shots) for name, work in steps.items()}


def _device_steps(backbone: Qwen2VL, batch: Prepared) -> dict[str, Callable[[], object]]:
    numbers = backbone.to_device(batch)
    content = batch.pixels.bytes.to(backbone.device)
    pictures = backbone.see(batch, numbers, content)
    hidden = backbone.read(batch, numbers, pictures)
    told = backbone.tell(batch, hidden)
    return {
        "copy the pixels": lambda: batch.pixels.bytes.to(backbone.device, non_blocking=True),
        "see: the vision tower": lambda: backbone.see(batch, numbers, content),
        "read: the prompt and all questions": lambda: backbone.read(batch, numbers, pictures),
        "tell: the scores' chances": lambda: backbone.tell(batch, hidden),
        "write the captions": lambda: backbone.write(numbers, told.first),
    }


def table(parts: dict[str, Times]) -> str:
    """A Markdown table."""
    lines = ["| stage | where | ms a shot |", "|---|---|---|"]
    for where, times in parts.items():
        lines += [f"| {name} | {where} | {milliseconds:.2f} |" for name, milliseconds in times.items()]
    return "\n".join(lines)
