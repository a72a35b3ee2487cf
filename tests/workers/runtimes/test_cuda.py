"""What a CPU cannot show: the same maps on CUDA, and a device that runs ahead of its plans."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.networks import ResNet18, seeded
from service.errors.models import DoesNotFit, NonFiniteScore
from tests.support.engine import (
    LAYER,
    SIZES,
    TOP,
    WITHOUT_TOKENS,
    attribute,
    image_for,
    logits,
    settled,
    small_runtime,
    through,
)
from workers.architectures.vit import Vit
from workers.batches import Batched
from workers.device import Stopwatch, forbid_tf32, rounds_to_tf32, sent
from workers.methods.base import METHODS, Maps
from workers.methods.grad_cam import GradCam
from workers.methods.saliency import Saliency
from workers.passes import Forward, Gradient, Plan, Rule, Tap
from workers.rows import INPUT, Ablated, Between, Blend, Given, Masked, Noisy, Patched, Rows
from workers.running import Planned
from workers.runtimes.base import Segment, Served
from workers.runtimes.graphs import AFTER, Graphs
from workers.runtimes.memory import Ledger
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler
from workers.union import work_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

CUDA = torch.device("cuda")
EQUAL = 1e-4
"""Share of a float64 map's range by which float32 may miss it."""

MEBIBYTE = 1 << 20
LONG = 2_000_000_000
"""Cycles that take about a second."""


@pytest.fixture(autouse=True)
def _exact() -> None:
    forbid_tf32()


def on_device(image: Tensor) -> Tensor:
    return image.to(CUDA)


def one(runtime: TorchRuntime, ask: Forward | Gradient) -> Served:
    work = work_of([ask])
    (served,) = runtime.serve(runtime.group(work), [Segment(work, 0, ask.rows.count)])
    assert isinstance(served, Served)
    return served


def captured(made: Graphs) -> int:
    return len(made._graphs)


# ------------------------------------------------------------------- the same maps


def test_float32_is_not_rounded_to_tf32() -> None:
    torch.backends.cudnn.allow_tf32 = True
    forbid_tf32()
    assert not rounds_to_tf32(CUDA)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("name", WITHOUT_TOKENS)
def test_every_method_gives_the_maps_of_a_cpu(name: str, axes: int) -> None:
    here, there = small_runtime(axes), small_runtime(axes, device=CUDA)
    image, method = image_for(axes), settled(METHODS[name](), here)
    expected = attribute(method, here, image, logits(0, 3)).values
    found = attribute(method, there, on_device(image), logits(0, 3)).values
    assert found.device.type == "cuda"
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-7, atol=1e-9)
    there.check()


@pytest.mark.parametrize("name", ["grad_cam", "saliency", "integrated_gradients", "rise"])
def test_float32_is_near_the_oracle(name: str) -> None:
    here, there = small_runtime(), small_runtime(dtype=torch.float32, device=CUDA)
    image, method = image_for(dtype=torch.float32), settled(METHODS[name](), here)
    expected = attribute(method, here, image.double(), logits(0, 3)).values
    found = attribute(method, there, on_device(image), logits(0, 3)).values.cpu().double()
    assert (found - expected).abs().max() <= EQUAL * (expected.max() - expected.min())


def test_a_transformers_attention_is_seen() -> None:
    vit = Vit(channels=1, classes=5, image=(32, 32), patch=8, width=24, depth=2, heads=2)
    torch.manual_seed(2)
    made = vit.build().double()
    image, maps = torch.randn(1, 32, 32, dtype=torch.float64), []
    for device in (torch.device("cpu"), CUDA):
        runtime = TorchRuntime(made, image.shape, None, device=device, tokens=vit.tokens())
        for name in ("attention_rollout", "gradient_attention", "grad_cam"):
            method = settled(METHODS[name](), runtime)
            maps.append(attribute(method, runtime, image.to(device), logits(1)).values.cpu())
    for expected, found in zip(maps[:3], maps[3:], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", WITHOUT_TOKENS)
def test_two_tenants_get_what_they_would_get_alone(name: str) -> None:
    runtime, scheduler = small_runtime(device=CUDA), Scheduler(slice_seconds=0.002)
    method = settled(METHODS[name](), runtime)
    asked = [(on_device(image_for(seed=seed)), logits(seed)) for seed in (0, 1, 2, 3)]
    alone = [attribute(method, runtime, *each).values for each in asked]
    for _ in range(3):  # sizes are known by the second time, and batches run ahead
        jobs = [
            scheduler.submit(f"{k}", runtime, [Planned(method.plan(*each), 1)])
            for k, each in enumerate(asked)
        ]
        scheduler.run_until_idle()
        for job, expected in zip(jobs, alone, strict=True):
            (maps,) = job.result(0).outcomes
            assert isinstance(maps, Maps), maps
            torch.testing.assert_close(maps.values, expected, rtol=1e-7, atol=1e-9)
    runtime.check()


def test_in_deterministic_mode_bits_do_not_depend_on_company() -> None:
    runtime = small_runtime(dtype=torch.float32, device=CUDA, fixed_rows=4)
    asked = [(on_device(image_for(seed=k, dtype=torch.float32)), logits(k)) for k in range(3)]
    method = GradCam(layer=LAYER)
    alone = [through(Scheduler(), runtime, method.plan(*each))[0].values for each in asked]
    scheduler = Scheduler()
    jobs = [
        scheduler.submit(f"{k}", runtime, [Planned(method.plan(*each), 1)])
        for k, each in enumerate(asked)
    ]
    scheduler.run_until_idle()
    for job, expected in zip(jobs, alone, strict=True):
        assert torch.equal(job.result(0).outcomes[0].values, expected)


# --------------------------------------------------------------------------- graphs


@pytest.mark.parametrize(("axes", "shape"), [(2, (3, 64, 64)), (3, (3, 32, 32, 32))])
def test_a_captured_pass_has_the_bits_of_the_pass_itself(axes: int, shape: Any) -> None:
    net = seeded(ResNet18, axes)
    runtime = TorchRuntime(net, shape, ("layer4",), device=CUDA)
    made, places = Graphs(Ledger()), ("layer4",)
    given = []
    for seed in range(AFTER + 4):
        batch = torch.randn(6, *shape, generator=torch.Generator().manual_seed(seed)).to(CUDA)
        given.append((batch, made.forward(runtime._plain, batch, places)))
    assert captured(made) == 1
    for batch, (outputs, found) in given:  # looked at last: a replay must not overwrite
        expected, seen = runtime._plain(batch, places)
        assert torch.equal(outputs, expected)
        assert torch.equal(found["layer4"], seen["layer4"])


def test_a_runtimes_frequent_passes_are_captured_and_give_the_same_scores() -> None:
    runtime = small_runtime(dtype=torch.float32, device=CUDA)
    here = small_runtime()
    for seed in range(2 * AFTER):
        rows = torch.stack([image_for(seed=7 * seed + k, dtype=torch.float32) for k in range(5)])
        step = one(runtime, Forward(Given(on_device(rows)), logits(0, 2), taps=(Tap(TOP),)))
        expected = one(here, Forward(Given(rows.double()), logits(0, 2), taps=(Tap(TOP),)))
        assert step.scores is not None
        assert expected.scores is not None
        torch.testing.assert_close(
            step.scores.cpu().double(), expected.scores, rtol=1e-4, atol=1e-4
        )
        assert step.taps[Tap(TOP)].shape == (5, 8, 10, 8)
    assert captured(runtime._graphs) == 1
    assert runtime.extra_bytes >= 5 * 4 * runtime.shape[1] * runtime.shape[2]


class Looking(nn.Module):
    """Looks at its own numbers, which no graph can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1)
        return self.head(rows if rows.sum().item() > 0 else -rows)


def test_a_model_that_cannot_be_captured_runs_as_it_is() -> None:
    torch.manual_seed(0)
    runtime = TorchRuntime(Looking(), (1, 2, 3), (), device=CUDA)
    stream, made = torch.cuda.current_stream(), Graphs(Ledger())
    for seed in range(2 * AFTER):
        batch = torch.randn(3, 1, 2, 3, generator=torch.Generator().manual_seed(seed)).to(CUDA)
        outputs, _ = made.forward(runtime._plain, batch, ())
        assert torch.equal(outputs, runtime._plain(batch, ())[0])
    assert captured(made) == 0
    assert torch.cuda.current_stream() == stream


# ------------------------------------------------------------------------ run ahead


def test_a_stopwatch_tells_the_devices_time_and_not_the_hosts() -> None:
    torch.cuda._sleep(1000)
    torch.cuda.synchronize()
    began = time.perf_counter()
    watch = Stopwatch(CUDA)
    torch.cuda._sleep(LONG // 10)
    watch.stop()
    assert time.perf_counter() - began < 0.02
    assert 0.03 < watch.seconds < 1


def test_scores_are_looked_at_without_waiting_for_what_came_later() -> None:
    runtime = small_runtime(device=CUDA)
    ask = Gradient(Given(on_device(image_for()[None])), logits(0))
    expected = one(runtime, ask).scores
    assert expected is not None
    torch.cuda.synchronize()
    served = one(runtime, ask)
    torch.cuda._sleep(LONG)
    began = time.perf_counter()
    assert served.read is not None
    scores, outputs = served.read()
    assert time.perf_counter() - began < 0.3
    assert outputs is None
    assert scores is not None
    assert scores.device.type == "cpu"
    torch.testing.assert_close(scores, expected.cpu())


def test_an_image_is_sent_as_it_is() -> None:
    image = image_for(dtype=torch.float32)
    arrived = sent(image, CUDA, torch.float64)
    assert arrived.device.type == "cuda"
    assert torch.equal(arrived.cpu(), image.double())


def rows_of_each_kind(image: Tensor) -> list[Rows]:
    masks = torch.rand(6, 1, *image.shape[1:], device=CUDA, dtype=image.dtype)
    given = torch.stack([image] * 6)
    box = (slice(2, 5), slice(1, 4))
    shares = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    return [
        Given(given),
        Blend(image, 0.0, shares),
        Noisy(image, 0.1, 0, 6),
        Masked(image, 0.0, lambda start, stop: masks[start:stop], 6),
        Patched(image, (box,) * 6, 0.0),
        Ablated(image, LAYER, (0, 1, 2, 3, 4, 5)),
        Between(image, lambda start, stop: given[start:stop] * 0, shares),
    ]


@pytest.fixture
def _never_waits() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("_never_waits")
@pytest.mark.parametrize("kind", range(7))
def test_no_batch_waits_for_the_one_before(kind: int) -> None:
    runtime = small_runtime(dtype=torch.float32, device=CUDA)
    rows = rows_of_each_kind(on_device(image_for(dtype=torch.float32)))[kind]

    def plan() -> Plan[int]:
        folded: list[int] = []
        yield Forward(rows, logits(0, 2, 3), fold=lambda start, _: folded.append(start))
        if not isinstance(rows, Ablated):
            ask = Gradient(rows, logits(1, 3), at=(INPUT, TOP), fold=lambda *_: folded.append(0))
            yield ask
        return len(folded)

    scheduler = Scheduler(slice_seconds=10)
    for _ in range(4):  # lets batches grow to all six rows
        through(scheduler, runtime, plan())
    torch.cuda.set_sync_debug_mode("error")
    (count,) = through(scheduler, runtime, plan())
    assert isinstance(count, int), count


@pytest.mark.parametrize("rule", [Rule.GUIDED, Rule.DECONVOLUTION])
def test_rules_of_rectifiers_hold(rule: Rule) -> None:
    image = image_for()
    here, there = small_runtime(), small_runtime(device=CUDA)
    expected = one(here, Gradient(Given(image[None]), logits(1), rule=rule))
    found = one(there, Gradient(Given(on_device(image)[None]), logits(1), rule=rule))
    torch.testing.assert_close(
        found.gradients[0, INPUT].cpu(), expected.gradients[0, INPUT], rtol=1e-7, atol=1e-9
    )


# ------------------------------------------------------------------------- failures


def test_numbers_that_are_not_finite_fail_their_own_job() -> None:
    runtime, scheduler = small_runtime(device=CUDA), Scheduler(slice_seconds=0.002)
    clean = on_device(image_for())
    rows = torch.stack([clean] * 64)
    rows[40] = torch.nan

    def plan(given: Tensor) -> Plan[str]:
        yield Forward(Given(given), logits(0), fold=lambda *_: None)
        return "done"

    for _ in range(2):
        bad = scheduler.submit("bad", runtime, [Planned(plan(rows), 64)])
        good = scheduler.submit("good", runtime, [Planned(plan(rows[:40]), 40)])
        scheduler.run_until_idle()
        assert isinstance(bad.result(0).outcomes[0], NonFiniteScore)
        assert good.result(0).outcomes[0] == "done"


class Hungry(nn.Module):
    """Takes 64 MiB a row."""

    def forward(self, x: Tensor) -> Tensor:
        wide = x.flatten(1).mean(1, keepdim=True).repeat(1, 16 * MEBIBYTE)
        return torch.stack([wide[:, 0], wide[:, -1]], 1)


@pytest.fixture
def little_memory() -> Iterator[Any]:
    """Return a way to have only so much memory beyond what is taken."""

    def limit(size: int) -> None:
        torch.cuda.empty_cache()
        _, total = torch.cuda.mem_get_info()
        taken = torch.cuda.memory_reserved()
        torch.cuda.set_per_process_memory_fraction((taken + size) / total)

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_a_batch_that_does_not_fit_is_halved(little_memory: Any) -> None:
    told: list[Batched] = []
    runtime = TorchRuntime(Hungry(), (1, 4, 4), (), device=CUDA)
    assert runtime.probed.row_bytes["forward"] > 32 * MEBIBYTE
    rows = torch.randn(40, 1, 4, 4, device=CUDA)
    scores = torch.zeros(40, 1, device=CUDA)
    little_memory(240 * MEBIBYTE)

    def plan() -> Plan[str]:
        def fold(start: int, step: Any) -> None:
            scores[start : start + step.count] = step.scores

        yield Forward(Given(rows), logits(0), fold=fold)
        return "done"

    scheduler = Scheduler(slice_seconds=10, on_batch=told.append)
    assert through(scheduler, runtime, plan()) == ["done"]
    assert any(each.halved for each in told)
    torch.testing.assert_close(scores[:, 0], rows.flatten(1).mean(1))


def test_what_does_not_fit_alone_is_told_so_and_others_live(little_memory: Any) -> None:
    runtime = TorchRuntime(Hungry(), (1, 4, 4), (), device=CUDA)
    assert runtime.probed.outputs
    other = small_runtime(device=CUDA)
    little_memory(40 * MEBIBYTE)

    def plan() -> Plan[None]:
        yield Forward(Given(torch.ones(1, 1, 4, 4, device=CUDA)), logits(0))

    scheduler = Scheduler()
    (outcome,) = through(scheduler, runtime, plan())
    assert isinstance(outcome, DoesNotFit)
    (maps,) = through(scheduler, other, Saliency().plan(on_device(image_for()), logits(0)))
    assert isinstance(maps, Maps)
    assert maps.values.shape == (1, 1, *SIZES[2])
