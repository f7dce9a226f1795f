"""What only a GPU can show: its kernels, graphs and attention give what plain torch on a CPU gives."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import model_loader
from benchmarks import shapes
from benchmarks.attention.cases import Heads, make_case
from engines.base import ShotPictures, ShotReading
from engines.qwen2vl import fused, linear
from engines.qwen2vl.attention import attend, attend_one, attend_pictures
from engines.qwen2vl.backbone import Qwen2VL
from engines.qwen2vl.decoder import see
from engines.qwen2vl.embedding import PatchEmbedding
from engines.qwen2vl.graphs import Recorder
from engines.qwen2vl.projection import Projection
from engines.qwen2vl.spans import Spans
from engines.runner import ModelRunner
from engines.stations import Answer, Job, pass_through
from settings import Settings
from tests.engines.mixed_on_gpu import difference, load, pictures, plain_runner, play, warm_runner

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")]

WIDTHS = [384, 1280, 1536]


def half(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.bfloat16)


def on_gpu(*tensors: torch.Tensor) -> list[torch.Tensor]:
    return [tensor.to("cuda", copy=True) for tensor in tensors]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", [1, 7, 33])
def test_norms_and_gates(width: int, rows: int) -> None:
    steps: list[tuple[Callable[..., object], list[torch.Tensor]]] = [
        (
            lambda x, w: fused.rms_norm(x, w, 1e-6),
            [half(rows, width), half(width)],
        ),
        (
            fused.layer_norm,
            [half(rows, width), half(width).float(), half(width), half(width)],
        ),
        (fused.silu_times, [half(rows, 2 * width)]),
        (fused.quick_gelu, [half(rows, width)]),
        (fused.log_mass, [half(rows, 3001) * 5]),
    ]
    for step, given in steps:
        there = step(*on_gpu(*given))
        here = step(*given)
        torch.testing.assert_close(there.cpu(), here, rtol=0.01, atol=0.01)  # type: ignore[attr-defined]


def test_the_mass_of_not_a_number_is_none() -> None:
    logits = half(2, 5000)
    logits[1, 4321] = torch.nan
    assert fused.log_mass(logits.cuda()).isnan().tolist() == [False, True]


@pytest.mark.parametrize(("heads", "kept", "width"), [(12, 2, 128), (6, 2, 64), (4, 4, 80)])
def test_turning_and_keeping(heads: int, kept: int, width: int) -> None:
    tokens = 9
    qkv, cache = half(tokens, heads + 2 * kept, width), torch.zeros(30, 2, kept, width, dtype=torch.bfloat16)
    angles, places = (torch.randn(tokens, width // 2), torch.randn(tokens, width // 2)), torch.randperm(30)[:5]
    there, there_cache, cos, sin, there_places = on_gpu(qkv, cache, *angles, places)
    fused.turn(there, (cos, sin), heads + kept, there_cache, there_places)
    fused.turn(qkv, angles, heads + kept, cache, places)
    torch.testing.assert_close(there.cpu(), qkv)
    torch.testing.assert_close(there_cache.cpu(), cache)


def spans(lengths: list[int], used: list[int] | None = None) -> tuple[Spans, Spans]:
    starts = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    counts = None if used is None else torch.tensor(used, dtype=torch.int32)
    there = None if counts is None else counts.cuda()
    return Spans(starts, max(lengths), counts), Spans(starts.cuda(), max(lengths), there)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("asking", [[10, 20], [1, 1]])
def test_ragged_attention(asking: list[int], *, causal: bool) -> None:
    query, key, value = half(sum(asking), 12, 128), half(100, 2, 128), half(100, 2, 128)
    ask, ask_there = spans(asking)
    seen, seen_there = spans([40, 60], [33, 47])
    here, mass = attend(query, key, value, ask, seen, causal=causal)
    q, k, v = on_gpu(query, key, value)
    there, there_mass = attend(q, k, v, ask_there, seen_there, causal=causal)
    torch.testing.assert_close(there.cpu(), here, rtol=0.02, atol=0.02)
    if max(asking) > 1:  # for one query a sequence, flash attention orders its masses otherwise, and nobody reads them
        torch.testing.assert_close(there_mass.cpu(), mass, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rows", [1, 2, 16, 70])
@pytest.mark.parametrize(("heads", "kept", "width"), [(12, 2, 128), (6, 2, 64)])
def test_one_query_a_row(rows: int, heads: int, kept: int, width: int) -> None:
    lengths = [1 + (997 * n) % 1200 for n in range(rows)]
    cached, cached_there = spans([1200] * rows, lengths)
    query, cache = half(rows, heads, width), half(1200 * rows, 2, kept, width)
    order = torch.arange(rows + 1, dtype=torch.int32)
    here = attend_one(query, cache, cached, order)
    there, there_cache, there_order = on_gpu(query, cache, order)
    torch.testing.assert_close(
        attend_one(there, there_cache, cached_there, there_order).cpu(), here, rtol=0.02, atol=0.02
    )


@pytest.mark.parametrize("heads", [Heads(12, 2, 128), Heads(28, 4, 128), Heads(4, 2, 64)], ids=str)
def test_a_batch_with_its_questions(settings: Settings, heads: Heads) -> None:
    runner = ModelRunner(shapes.random_model("tiny", "cpu", torch.float32), settings.attributes, 24)
    case = make_case(runner, 6000, (5, 7), heads, half(0).cuda())
    exact = see(case.cache.float(), case.qkv.float(), case.batch)
    torch.testing.assert_close(see(case.cache, case.qkv, case.batch).float(), exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("width", [64, 80, 128])
@pytest.mark.parametrize("lengths", [[60] * 16, [1, 1008, 64, 333]])
def test_pictures_see_themselves(width: int, lengths: list[int]) -> None:
    (qkv,) = on_gpu(half(sum(lengths), 3 * 4, width))
    _, pictures = spans(lengths)
    query, key, value = qkv.float().split(4, dim=1)
    exact, _ = attend(query, key, value, pictures, pictures, causal=False)
    torch.testing.assert_close(attend_pictures(qkv, pictures).float(), exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("tokens", [linear.LEAST_TOKENS, 1000, linear.LEAST_PATCHES, 5000])
@pytest.mark.parametrize(("width", "inner"), [(1280, 5120), (256, 1024), (384, 1000)])
def test_layers_and_their_activations_are_nearer_to_exact_than_step_by_step(
    tokens: int, width: int, inner: int
) -> None:
    x, weight, more, bias = on_gpu(half(tokens, width), half(inner, width), half(inner, width), half(inner))
    weight, more = (each * width**-0.5 for each in (weight, more))
    straight = F.linear(x.double(), weight.double())
    exact = (straight + bias) * torch.sigmoid(1.702 * (straight + bias))
    bent = linear.linear_quick_gelu(x, weight, bias)
    steps = fused.quick_gelu(F.linear(x, weight, bias))
    gated = F.silu(straight) * F.linear(x.double(), more.double())
    both = torch.cat([weight, more])
    for answer, stepped, right in (
        (bent, steps, exact),
        (linear.linear_silu_times(x, both), fused.silu_times(F.linear(x, both)), gated),
    ):
        torch.testing.assert_close(answer.double(), right, rtol=0.02, atol=0.02)
        assert (answer - right).square().mean() <= 1.01 * (stepped - right).square().mean()


@pytest.mark.parametrize("patches", [64, 1008, 3024])
def test_patches_are_embedded_exactly(patches: int) -> None:
    spec = model_loader.PictureSpec(14, 2, 2, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
    kernel = 0.02 * torch.randn(1280, 3, 14, 14)
    content = torch.randint(0, 256, (patches, 3, 14, 14), dtype=torch.uint8)
    mean, std = (torch.tensor(each, dtype=torch.float64).view(3, 1, 1) for each in (spec.mean, spec.std))
    exact = ((content.double() / 255 - mean) / std).flatten(1) @ kernel.double().flatten(1).T
    answer = PatchEmbedding(kernel.cuda(), spec, torch.bfloat16).embed(content.cuda())
    torch.testing.assert_close(answer.cpu().double(), exact, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize(("heads", "kept", "width", "inner"), [(12, 2, 128, 8960), (6, 2, 64, 1024)])
def test_a_token_alone(heads: int, kept: int, width: int, inner: int) -> None:
    """Its kernels against the plain lines in float32, on a CPU."""
    hidden, outputs = heads * width, (heads + 2 * kept) * width
    x, norm, weight, bias = half(1, hidden), half(hidden), half(outputs, hidden) / 40, half(outputs)
    gates, out, change = half(2 * inner, hidden) / 40, half(hidden, inner) / 40, half(1, inner)
    angles = torch.randn(1, width // 2), torch.randn(1, width // 2)
    cache, place = torch.zeros(9, 2, kept, width, dtype=torch.bfloat16), torch.tensor([7])

    def answers(x: torch.Tensor, *given: torch.Tensor) -> list[torch.Tensor]:
        norm, weight, bias, gates, out, change, cache, place, cos, sin = given
        query = linear.norm_query(x, Projection(norm, 1e-6, weight, bias), (cos, sin), cache, place)
        gated = linear.norm_silu_times(x, Projection(norm, 1e-6, gates))
        linear.add_linear(x, change, out)
        return [each.cpu().float() for each in (query, cache, gated, x)]

    given = [x, norm, weight, bias, gates, out, change, cache, place, *angles]
    exact = answers(*(each.float() if each.is_floating_point() else each for each in given))
    for there, here in zip(answers(*on_gpu(*given)), exact, strict=True):
        torch.testing.assert_close(there, here, rtol=2**-7, atol=0.005)


def test_a_layer_is_recorded_and_replayed() -> None:
    x, weight, bias = on_gpu(half(linear.LEAST_PATCHES, 256), half(512, 256) / 16, half(512))
    at_once = linear.linear_quick_gelu(x, weight, bias)
    told: list[torch.Tensor] = []
    graph = Recorder().record(lambda: told.append(linear.linear_quick_gelu(x, weight, bias)))
    assert graph
    x.mul_(-1)
    graph.replay()
    assert not torch.equal(told[-1], at_once)
    torch.testing.assert_close(told[-1], linear.linear_quick_gelu(x, weight, bias))


def test_what_can_not_be_recorded_leaves_the_gpu_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    recorder, stream = Recorder(), torch.cuda.current_stream()
    assert recorder.record(lambda: torch.ones(1000, device="cuda").sum().item()) is None  # the host would have to wait
    assert "a CUDA graph could not be recorded" in caplog.text
    assert torch.cuda.current_stream() == stream
    free = torch.cuda.mem_get_info()[0]
    large = torch.ones(2**28, dtype=torch.uint8, device="cuda")
    assert int(large.sum(dtype=torch.int64)) == 2**28
    del large
    torch.cuda.empty_cache()
    assert torch.cuda.mem_get_info()[0] >= free
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(2**50, dtype=torch.uint8, device="cuda")
    test_a_layer_is_recorded_and_replayed()
    y, told = torch.ones(4, device="cuda"), list[torch.Tensor]()
    graph = recorder.record(lambda: told.append(y * 2))
    assert graph
    y.fill_(21)
    graph.replay()
    assert told[-1].tolist() == [42.0] * 4


@pytest.fixture(scope="module")
def gpu_settings(settings: Settings) -> Settings:
    return changed(settings, device="cuda")


@pytest.fixture(scope="module")
def half_loaded(gpu_settings: Settings) -> model_loader.LoadedModel:
    loaded = load(gpu_settings)
    assert loaded.dtype is torch.bfloat16
    return loaded


@pytest.fixture(scope="module")
def warm(
    gpu_settings: Settings, half_loaded: model_loader.LoadedModel
) -> tuple[ModelRunner, int, model_loader.PictureSpec]:
    """As the engine process has it: half precision, graphs, a full cache; and its budget."""
    return *warm_runner(half_loaded, gpu_settings), half_loaded.pictures


@pytest.fixture(scope="module")
def exact(settings: Settings) -> ModelRunner:
    """The same model in float32 on the CPU."""
    loaded = load(changed(settings, device="cpu", dtype="float32"))
    return ModelRunner(loaded, settings.attributes, settings.model.max_caption_tokens)


def changed(settings: Settings, **model: str) -> Settings:
    return settings.model_copy(update={"model": settings.model.model_copy(update=model)})


def look(runner: ModelRunner, *shots: ShotPictures) -> list[ShotReading]:
    return [answer for answer in runner.look(shots) if isinstance(answer, ShotReading)]


def apart(one: ShotReading, other: ShotReading) -> float:
    return max(
        abs(a.value - b.value)
        for name in one.readings
        for a, b in zip(one.readings[name], other.readings[name], strict=True)
    )


def test_half_precision_on_the_gpu_answers_as_float32_on_the_cpu(
    warm: tuple[ModelRunner, int, model_loader.PictureSpec], exact: ModelRunner
) -> None:
    runner = warm[0]
    shots = [pictures(10 * n, 1 + n % 3, 5, 4 + n) for n in range(8)]
    for fast, slow in zip(look(runner, *shots), look(exact, *shots), strict=True):
        assert apart(fast, slow) < 0.02


def test_float32_starts_and_answers_as_the_cpu(settings: Settings, exact: ModelRunner) -> None:
    """What GPUs without bfloat16 get by default: through the engine's whole warm-up, then 200 shots."""
    full = changed(settings, device="cuda", dtype="float32")
    runner, _ = warm_runner(load(full), full)
    shots = [pictures(1000 + 3 * n, 1 + n % 3, 2 + n % 5, 2 + n % 7) for n in range(200)]
    batches = [[shot] for shot in shots[:40]] + [shots[first : first + 32] for first in range(40, 200, 32)]
    for batch in batches:
        assert difference(runner.look(batch), exact.look(batch)) < 1e-3


def test_a_recording_answers_as_before_after_120_other_batches(
    warm: tuple[ModelRunner, int, model_loader.PictureSpec],
) -> None:
    """Their memory is taken and given back meanwhile: what a recording reads must be its own."""
    runner, shot = warm[0], pictures(5, 3, 6, 9)
    plain = look(runner, shot)
    for _ in range(3):
        recorded = look(runner, shot)
    assert difference(recorded, plain) < 0.02
    taken: list[torch.Tensor] = []  # of what was evicted, and some of it given back
    for number in range(120):
        look(runner, *(pictures(31 * number + n, 1, 2, 2) for n in range(2 + number % 75)))
        look(runner, *(pictures(number + n, 1, 1 + number % 9, 1 + number // 9) for n in range(2)))
        taken += [torch.randint(2**30, (64,), device="cuda") for _ in range(8)]
        if number % 3 == 0:
            taken.clear()
        assert look(runner, shot) == recorded


def test_mixed_shots_and_batches_answer_as_the_plain_path(
    warm: tuple[ModelRunner, int, model_loader.PictureSpec],
    half_loaded: model_loader.LoadedModel,
    gpu_settings: Settings,
) -> None:
    tally = play(warm[0], plain_runner(half_loaded, gpu_settings), 20)
    assert tally.good, tally


def test_alone_recorded_and_in_a_batch(warm: tuple[ModelRunner, int, model_loader.PictureSpec]) -> None:
    runner = warm[0]
    shots = [pictures(10 * n, 3, 6, 8) for n in range(40)]
    together = look(runner, *shots)
    backbone = runner.backbone
    assert isinstance(backbone, Qwen2VL)
    alone = [look(runner, shot)[0] for shot in shots[:4]]  # from the third on, by a recorded graph
    assert all(apart(one, other) < 0.02 for one, other in zip(alone, together, strict=False))
    # Roundings may part two captions, but not all of them.
    assert any(one.caption == other.caption for one, other in zip(alone, together, strict=False))
    assert tuple((168, 224) for _ in range(3)) in backbone._recordings._kept


def test_batches_one_behind_the_other_answer_as_each_by_itself(
    warm: tuple[ModelRunner, int, model_loader.PictureSpec],
) -> None:
    """As in an engine process, on three threads: nothing of one gets into the other."""
    runner = warm[0]
    shots = [pictures(7 * n, 1 + n % 3, 4 + n % 3, 7) for n in range(60)]
    batches = [shots[first:last] for first, last in ((0, 40), (10, 60), (5, 6), (5, 6), (5, 6), (0, 60), (30, 33))] * 3
    answers: list[Answer] = []
    pass_through(runner, [Job(batch, None, answers.extend) for batch in batches])
    expected = [answer for batch in batches for answer in look(runner, *batch)]
    assert answers == expected


def test_no_mix_of_sizes_runs_out_of_memory(warm: tuple[ModelRunner, int, model_loader.PictureSpec]) -> None:
    runner, budget, spec = warm
    random = np.random.default_rng(3)
    most = spec.max_tokens(256)
    for _ in range(5):
        shots: list[ShotPictures] = []
        left = budget
        while True:
            rows = int(random.integers(1, 20))
            columns = int(random.integers(1, max(2, most // rows)))
            cost = 3 * rows * columns + runner.backbone.text_tokens(3)
            if cost > left:
                break
            left -= cost
            shots.append(ShotPictures((np.full((28 * rows, 28 * columns, 3), len(shots) % 256, np.uint8),) * 3))
        assert len(look(runner, *shots)) == len(shots)
    free, total = torch.cuda.mem_get_info()
    assert free > 0.05 * total
