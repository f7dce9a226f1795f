"""Builds the GPU's kernels while Python still imports transformers, so that a first start on a machine is the sooner.

Triton compiles a kernel when it is called for the first time and keeps it on the disk: some twenty of them, one after
another, on one core. A container that is new each time does that at every start. Here each is called once, on a few
numbers of the model's widths, from several threads; while one is compiled, Python can go on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from engines.qwen2vl import attention, fused, linear
from engines.qwen2vl.captions import GRAPH_ROWS
from engines.qwen2vl.projection import Projection
from engines.qwen2vl.spans import Spans
from served_models import read_json

log = logging.getLogger(__name__)

THREADS = 8
EPS = 1e-6  # a kernel takes it as a number like any other
TOKENS = 2
FEW = 32  # outputs, where their number makes no other kernel


@dataclass(frozen=True, slots=True)
class Widths:
    """What kernels are compiled for.

    Attributes:
        hidden: numbers of a token on the text side.
        inner: numbers inside its feed-forward layers.
        heads: of queries.
        kept: heads of keys, and of values.
        words: in the vocabulary.
        vision: numbers of a patch in the vision tower.
        vision_inner: numbers inside its feed-forward layers.
        vision_heads: its heads.
    """

    hidden: int
    inner: int
    heads: int
    kept: int
    words: int
    vision: int
    vision_inner: int
    vision_heads: int


def read_widths(folder: Path) -> Widths | None:
    """From a checkpoint's config.json; None where it is no Qwen2-VL.

    Raises:
        KeyError: the file lacks a width.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") != "qwen2_vl":
        return None
    text, eye = config.get("text_config", config), config["vision_config"]
    return Widths(
        hidden=text["hidden_size"],
        inner=text["intermediate_size"],
        heads=text["num_attention_heads"],
        kept=text["num_key_value_heads"],
        words=text["vocab_size"],
        vision=eye["embed_dim"],
        vision_inner=int(eye["embed_dim"] * eye["mlp_ratio"]),
        vision_heads=eye["num_heads"],
    )


def begin(folder: Path, dtype: torch.dtype, rank: int) -> threading.Thread:
    """Build in the background.

    Args:
        folder: a whole checkpoint.
        dtype: of its weights on the GPU.
        rank: which GPU.

    Returns:
        The thread; join it before the model is asked. It ends by itself, whatever goes wrong: what it has not built is
        built when it is needed.
    """

    def work() -> None:
        try:
            widths = read_widths(folder)
            torch.cuda.set_device(rank)
            if widths and dtype in fused.HALVES and fused.has_triton():
                build(widths, torch.empty(0, dtype=dtype, device="cuda"))
                torch.cuda.empty_cache()  # a layer's weights: what is free decides how large batches are
        except Exception as error:  # of a driver, a compiler, a file: whoever needs it next tells better
            log.info("kernels were not built ahead (%s: %s)", type(error).__name__, error)

    thread = threading.Thread(target=work, name="build-kernels", daemon=True)
    thread.start()
    return thread


def build(widths: Widths, like: torch.Tensor) -> None:
    """Call every kernel once.

    Args:
        widths: of the model.
        like: whose device and type the numbers have.
    """
    with ThreadPoolExecutor(THREADS, "build", partial(_on_device_of, like)) as pool:
        for done in [pool.submit(call) for call in _calls(widths, like)]:
            done.result()


def _on_device_of(like: torch.Tensor) -> None:
    if like.is_cuda:
        torch.cuda.set_device(like.device)


def _calls(widths: Widths, like: torch.Tensor) -> Iterator[Callable[[], object]]:
    """Those that take longest to compile come first."""
    yield from _products(widths, like)
    yield from _alone(widths, like)
    yield from _picture_attention(widths, like)
    yield from _text_attention(widths, like)
    yield from _caption_attention(widths, like)
    yield from _turning(widths, like)
    yield from _small_steps(widths, like)


def _products(widths: Widths, like: torch.Tensor) -> Iterator[Callable[[], object]]:
    """Of few columns: how many there are makes no other kernel where they are a multiple of 16, as a model's are."""
    patches, inner = like.new_zeros(linear.LEAST_PATCHES, widths.vision), like.new_zeros(FEW, widths.vision)
    yield partial(linear.linear_quick_gelu, patches, inner, like.new_zeros(FEW))
    tokens, gates = like.new_zeros(linear.LEAST_TOKENS, widths.hidden), like.new_zeros(2 * FEW, widths.hidden)
    yield partial(linear.linear_silu_times, tokens, gates)


def _alone(widths: Widths, like: torch.Tensor) -> Iterator[Callable[[], object]]:
    """A step's layers for one caption. How many heads and gates there are is compiled in, so those are a layer's."""
    width, all_heads = widths.hidden // widths.heads, widths.heads + 2 * widths.kept
    token, norm = like.new_zeros(1, widths.hidden), like.new_zeros(widths.hidden)
    angles = like.new_zeros(2, 1, width // 2, dtype=torch.float32)
    cache, place = like.new_zeros(1, 2, widths.kept, width), torch.zeros(1, dtype=torch.long, device=like.device)
    for inner in (widths.hidden, widths.inner):
        yield partial(linear.add_linear, like.new_zeros(1, FEW), like.new_zeros(1, inner), like.new_zeros(FEW, inner))
    qkv = like.new_zeros(all_heads * width, widths.hidden)
    project = Projection(norm, EPS, qkv, qkv.new_zeros(len(qkv)))
    yield partial(linear.norm_query, token, project, (angles[0], angles[1]), cache, place)
    gate_and_up = Projection(norm, EPS, like.new_zeros(2 * widths.inner, widths.hidden))
    yield partial(linear.norm_silu_times, token, gate_and_up)


def _text_attention(widths: Widths, like: torch.Tensor) -> Iterator[Callable[[], object]]:
    heads, width = widths.heads, widths.hidden // widths.heads
    qkv = like.new_zeros(TOKENS, heads + 2 * widths.kept, width)
    cache = like.new_zeros(TOKENS, 2, widths.kept, width)
    starts = torch.tensor([0, TOKENS], dtype=torch.int32, device=like.device)
    asking, cached = Spans(starts, TOKENS), Spans(starts, TOKENS, starts[1:].clone())
    keys = torch.arange(TOKENS, device=like.device)
    for causal in (True, False):
        out = like.new_empty(TOKENS, heads, width)
        yield partial(attention.attend_cached, qkv[:, :heads], cache, asking, cached, out, causal=causal)
    answer, mass = like.new_zeros(TOKENS, heads, width), like.new_zeros(heads, TOKENS, dtype=torch.float32)
    yield partial(attention.join_own, answer, mass, qkv, keys, twigs=asking, keyed=asking)


def _caption_attention(widths: Widths, like: torch.Tensor) -> Iterator[Callable[[], object]]:
    """A kernel for each number of parts that a row is cut into."""
    from engines.qwen2vl.kernels.captions import parts_of

    heads, width = widths.heads, widths.hidden // widths.heads
    cache = like.new_zeros(1, 2, widths.kept, width)
    for rows in {parts_of(rows, widths.kept): rows for rows in GRAPH_ROWS}.values():
        qkv = like.new_zeros(rows, heads + 2 * widths.kept, width)
        starts = torch.zeros(rows + 1, dtype=torch.int32, device=like.device)
        order = torch.arange(rows + 1, dtype=torch.int32, device=like.device)
        cached = Spans(starts, 1, torch.ones_like(starts[1:]))
        yield partial(attention.attend_one, qkv[:, :heads], cache, cached, order)


def _turning(widths: Widths, like: torch.Tensor) -> Iterator[Callable[[], object]]:
    width, vision_width = widths.hidden // widths.heads, widths.vision // widths.vision_heads
    qkv = like.new_zeros(TOKENS, widths.heads + 2 * widths.kept, width)
    cache = like.new_zeros(TOKENS, 2, widths.kept, width)
    places = torch.arange(TOKENS, device=like.device)
    angles = like.new_zeros(2, TOKENS, width // 2, dtype=torch.float32)
    yield partial(fused.turn, qkv, (angles[0], angles[1]), widths.heads + widths.kept, cache, places)
    patches = like.new_zeros(TOKENS, 3 * widths.vision_heads, vision_width)
    turns = like.new_zeros(2, TOKENS, vision_width // 2, dtype=torch.float32)
    yield partial(fused.turn, patches, (turns[0], turns[1]), 2 * widths.vision_heads)


def _picture_attention(widths: Widths, like: torch.Tensor) -> Iterator[Callable[[], object]]:
    patches = like.new_zeros(TOKENS, 3 * widths.vision_heads, widths.vision // widths.vision_heads)
    starts = torch.tensor([0, TOKENS], dtype=torch.int32, device=like.device)
    yield partial(attention.attend_pictures, patches, Spans(starts, TOKENS))


def _small_steps(widths: Widths, like: torch.Tensor) -> Iterator[Callable[[], object]]:
    def some(width: int) -> torch.Tensor:
        return like.new_zeros(TOKENS, width)

    yield partial(fused.rms_norm, some(widths.hidden), like.new_zeros(widths.hidden), EPS)
    shift, weights = like.new_zeros(widths.vision, dtype=torch.float32), like.new_zeros(2, widths.vision)
    yield partial(fused.layer_norm, some(widths.vision), shift, weights[0], weights[1])
    yield partial(fused.silu_times, some(2 * widths.inner))
    yield partial(fused.quick_gelu, some(widths.vision_inner))
    yield partial(fused.log_mass, some(widths.words))
