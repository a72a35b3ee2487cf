"""What jobs share, and that nobody can tell."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tests.support.engine import (
    LAYER,
    WITHOUT_TOKENS,
    SmallNet,
    attribute,
    image_for,
    logits,
    settled,
    small_net,
    small_runtime,
    through,
)
from workers.methods.base import METHODS
from workers.passes import Ability, Forward, Gradient, Plan, Step, Tap
from workers.rows import INPUT, Blend, Clean, Given, Noisy
from workers.running import Planned
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler


def net_of(runtime: TorchRuntime) -> SmallNet:
    assert isinstance(runtime.served, SmallNet)
    return runtime.served


def ask(*passes: Forward | Gradient) -> Plan[tuple[Step, ...]]:
    """A plan that returns what its passes gave."""
    steps: tuple[Step, ...] = yield passes
    return steps


def test_several_targets_share_one_forward_pass() -> None:
    runtime = small_runtime()
    method = settled(METHODS["grad_cam"](), runtime)
    through(Scheduler(), runtime, method.plan(image_for(), logits(0, 1, 2, 3, 4)))
    assert net_of(runtime).batches == [1]


def test_methods_of_one_job_share_their_clean_pass() -> None:
    runtime, image = small_runtime(), image_for()
    plans = [
        settled(METHODS[name](), runtime).plan(image, logits(0, 2))
        for name in ("grad_cam", "saliency")
    ]
    raw = ask(Forward(Clean(image), outputs=True), Forward(Clean(image), taps=(Tap(LAYER),)))
    outcomes = through(Scheduler(), runtime, *plans, raw)
    assert net_of(runtime).batches == [1]
    with torch.no_grad():
        torch.testing.assert_close(outcomes[2][0].outputs[0], small_net()(image[None])[0])
    layer = outcomes[2][1].taps[Tap(LAYER)][0]
    assert layer.shape == runtime.probed.layers[0].shape


def test_wants_are_united_as_pairs_and_never_as_a_product() -> None:
    """Fourteen targets at a layer and one at the input: one way down to the input."""
    runtime, image = small_runtime(), image_for()
    ways_down: list[int] = []
    below = net_of(runtime).features[3]
    handle = below.register_full_backward_hook(lambda *_: ways_down.append(1))
    try:
        plans = [
            ask(Gradient(Clean(image), logits(0, 1, 2, 3, 4), at=(LAYER,))),
            ask(Gradient(Clean(image), logits(2))),
        ]
        scheduler = Scheduler()
        jobs = scheduler.submit("job", runtime, [Planned(plan, 1) for plan in plans])
        while scheduler.turn() and not jobs.done():
            pass
    finally:
        handle.remove()
    assert len(ways_down) == 1
    assert net_of(runtime).batches == [1]


def score_of(runtime: TorchRuntime, image: Tensor) -> float:
    """Return the largest magnitude among the scores of an image."""
    with torch.no_grad():
        return runtime.model(image[None]).abs().max().item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("axes", [2, 3])
def test_merged_equals_alone(dtype: torch.dtype, axes: int) -> None:
    runtime = small_runtime(axes, dtype=dtype)
    scheduler = Scheduler()
    cases = []
    for k in range(2):  # jobs of one target and of two
        for name in WITHOUT_TOKENS:
            method = settled(METHODS[name](), runtime, baseline=0.1)
            image = image_for(axes, dtype=dtype, seed=k)
            targets = logits(*range(k + 1))
            job = scheduler.submit(
                f"{name}-{k}", runtime, [Planned(method.plan(image, targets), 1)]
            )
            cases.append((method, image, targets, job))
    scheduler.run_until_idle()
    assert max(net_of(runtime).batches) > 1
    tolerance = 2e-6 if dtype is torch.float32 else 1e-12
    for method, image, targets, job in cases:
        (merged,) = job.result(0).outcomes
        many = method.estimate(image.shape, len(targets)).rows > 100
        alone = attribute(method, runtime, image, targets, chunk=50 if many else 1)
        span = (alone.values.max() - alone.values.min()).item()
        # differences of nearly equal scores have an error that scales with them
        perturbs = method.needs == {Ability.FORWARD}
        scale = max(span, score_of(runtime, image)) if perturbs else span
        assert (merged.values - alone.values).abs().max().item() <= tolerance * scale


def test_interleaved_jobs_never_mix() -> None:
    """Each job's rows carry its own number; each must get back only its own."""
    runtime = small_runtime()
    net = small_net()
    scheduler = Scheduler()
    sent = []
    for k in range(7):
        rows = torch.stack([image_for(seed=100 * k + i) for i in range(5 + 3 * k)])
        plan = ask(Forward(Given(rows), logits(k % 5)))
        sent.append((rows, k % 5, scheduler.submit(f"job-{k}", runtime, [Planned(plan, 1)])))
    scheduler.run_until_idle()
    for rows, index, job in sent:
        ((step,),) = job.result(0).outcomes
        with torch.no_grad():
            torch.testing.assert_close(step.scores[:, 0], net(rows)[:, index])


def test_rows_are_served_once_each_and_in_order() -> None:
    runtime = small_runtime()
    scheduler = Scheduler()
    chunks: dict[str, list[tuple[int, int]]] = {}

    def plan(name: str, count: int) -> Plan[Step]:
        def fold(start: int, step: Step) -> None:
            assert step.start == start
            assert step.scores is not None
            assert len(step.scores) == step.count
            chunks.setdefault(name, []).append((start, step.count))

        image = image_for(seed=count)
        whole: Step = yield Forward(Noisy(image, 0.1, 1, count), logits(0), fold=fold)
        return whole

    jobs = {
        name: scheduler.submit(name, runtime, [Planned(plan(name, count), count)])
        for name, count in (("a", 40), ("b", 7), ("c", 23))
    }
    scheduler.run_until_idle()
    for name, count in (("a", 40), ("b", 7), ("c", 23)):
        at = 0
        for start, rows in chunks[name]:
            assert start == at
            at += rows
        assert at == count
        report = jobs[name].result(0)
        assert (report.outcomes[0].count, report.rows) == (count, count)


def tensors(step: Step) -> Iterator[Tensor]:
    yield from (each for each in (step.scores, step.outputs) if each is not None)
    for values in (step.taps, step.activations, step.gradients):
        yield from values.values()


def test_no_tensor_of_a_batch_outlives_its_step() -> None:
    """A step's tensors own their memory: none is a view that keeps a batch alive."""
    runtime, scheduler = small_runtime(), Scheduler()
    image = image_for()
    plans = [
        ask(
            Gradient(Clean(image), logits(1), at=(INPUT, LAYER)),
            Forward(Clean(image), logits(0), taps=(Tap(LAYER),), outputs=True),
        ),
        ask(Gradient(Clean(image), logits(1), at=(LAYER,))),
    ]
    others = ask(Gradient(Blend(image_for(seed=9), 0.0, (0.2, 0.4)), logits(1), at=(LAYER,)))
    jobs = [
        scheduler.submit("a", runtime, [Planned(plan, 1) for plan in plans]),
        scheduler.submit("b", runtime, [Planned(others, 1)]),
    ]
    scheduler.run_until_idle()
    seen = set()
    for job in jobs:
        for steps in job.result(0).outcomes:
            for tensor in (each for step in steps for each in tensors(step)):
                assert not tensor.requires_grad
                storage = tensor.untyped_storage()
                assert storage.nbytes() == tensor.numel() * tensor.element_size()
                assert storage.data_ptr() not in seen
                seen.add(storage.data_ptr())


def test_a_plan_may_write_into_what_it_was_given() -> None:
    """Two plans on one united pass: neither sees what the other does to its tensors."""
    image = image_for()

    def spoil() -> Plan[None]:
        step = yield Gradient(Clean(image), logits(1), at=(LAYER,))
        step.activations[LAYER].zero_()
        step.gradients[LAYER].zero_()
        step.scores.zero_()

    runtime = small_runtime()
    method = settled(METHODS["grad_cam"](), runtime)
    _, maps = through(Scheduler(), runtime, spoil(), method.plan(image, logits(1)))
    assert net_of(runtime).batches == [1]
    alone = attribute(method, runtime, image, logits(1))
    assert torch.equal(maps.values, alone.values)


def test_a_folding_pass_is_never_united() -> None:
    runtime, image = small_runtime(), image_for()
    folded: list[int] = []
    plans = [
        ask(
            Forward(Clean(image), logits(0), fold=lambda start, _step: folded.append(start)),
            Forward(Clean(image), logits(0)),
        )
        for _ in range(2)
    ]
    outcomes = through(Scheduler(), runtime, *plans)
    assert folded == [0, 0]
    assert all(steps[0].scores is None for steps in outcomes)
    assert all(steps[1].scores is not None for steps in outcomes)


def test_two_replicas_are_served_side_by_side() -> None:
    first, second = small_runtime(2), small_runtime(3)
    scheduler = Scheduler()
    jobs = []
    for runtime, axes in ((first, 2), (second, 3)):
        method = settled(METHODS["saliency"](), runtime)
        plan = method.plan(image_for(axes), logits(1))
        jobs.append(scheduler.submit(f"{axes}", runtime, [Planned(plan, 1)]))
    scheduler.run_until_idle()
    shapes = [job.result(0).outcomes[0].values.shape for job in jobs]
    assert shapes == [(1, 1, 20, 16), (1, 1, 12, 10, 8)]


@pytest.mark.parametrize("name", WITHOUT_TOKENS)
def test_in_deterministic_mode_a_maps_bits_do_not_depend_on_company(name: str) -> None:
    runtime = small_runtime(dtype=torch.float32, fixed_rows=4)
    method = settled(METHODS[name](), runtime, baseline=0.1)
    image = image_for(dtype=torch.float32)
    (alone,) = through(Scheduler(), runtime, method.plan(image, logits(1)))
    scheduler = Scheduler()
    others = [
        scheduler.submit(
            f"other-{k}",
            runtime,
            [Planned(method.plan(image_for(dtype=torch.float32, seed=k), logits(k)), 1)],
        )
        for k in range(3)
    ]
    job = scheduler.submit("job", runtime, [Planned(method.plan(image, logits(1)), 1)])
    scheduler.run_until_idle()
    assert all(other.done() for other in others)
    assert set(net_of(runtime).batches) == {4}
    (merged,) = job.result(0).outcomes
    assert torch.equal(alone.values, merged.values)
