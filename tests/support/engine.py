"""Small models with known answers, and ways to drive a plan against them."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from workers.methods.base import METHODS, Maps, Method, ModelFacts
from workers.passes import Ability, Exclusive, Plan, Scalar, TimeUp
from workers.running import Planned
from workers.runtimes.base import Runtime, Segment
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler
from workers.targets.scalars import ClassLogit
from workers.union import joined, step_of, work_of

torch.set_num_threads(1)

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
FLAT = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
WITHOUT_TOKENS = [name for name in METHODS if Ability.ATTENTION not in METHODS[name].needs]
"""Names of the methods that a convolutional network can serve."""

SIZES = {1: (32,), 2: (20, 16), 3: (12, 10, 8)}
CLASSES = 5
LAYER = "features.4"
TOP = "features"
"""The last grid, of whose mean the scores are a linear function."""


class SmallNet(nn.Module):
    """A convolutional classifier with batch norm and in-place rectification."""

    def __init__(self, axes: int = 2, channels: int = 1) -> None:
        super().__init__()
        self.features = nn.Sequential(
            CONV[axes](channels, 6, 3, padding=1),
            NORM[axes](6),
            nn.ReLU(inplace=True),
            POOL[axes](2),
            CONV[axes](6, 8, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.pool = FLAT[axes](1)
        self.head = nn.Linear(8, CLASSES)
        self.batches: list[int] = []
        """Rows of each call, in order."""

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        return self.head(self.pool(self.features(x)).flatten(1))


class Polynomial(nn.Module):
    """f(x) = sum(w1 x) + sum(w2 x^2): a model whose integral is known on paper."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.w1 = nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64))
        self.w2 = nn.Parameter(torch.randn(*shape, generator=generator, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (self.w1 * x + self.w2 * x**2).flatten(1).sum(1, keepdim=True)


def small_net(axes: int = 2, channels: int = 1, dtype: torch.dtype = torch.float64) -> SmallNet:
    """Return a network whose norm statistics and scores are not trivial."""
    torch.manual_seed(3)
    net = SmallNet(axes, channels)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(3.0)
        norm = net.features[1]
        norm.running_mean.uniform_(-0.3, 0.3)
        norm.running_var.uniform_(0.5, 2.0)
    return net.to(dtype).eval()


def image_for(
    axes: int = 2, channels: int = 1, dtype: torch.dtype = torch.float64, seed: int = 0
) -> Tensor:
    """Return a smooth-ish random image."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(channels, *SIZES[axes], generator=generator, dtype=torch.float64).to(dtype)


def small_runtime(
    axes: int = 2, channels: int = 1, dtype: torch.dtype = torch.float64, **options: Any
) -> TorchRuntime:
    """Return a probed runtime of a small network; its batches so far are forgotten."""
    net = small_net(axes, channels, dtype)
    runtime = TorchRuntime(net, (channels, *SIZES[axes]), (LAYER, TOP), **options)
    assert runtime.probed.layers
    assert isinstance(runtime.served, SmallNet)
    runtime.served.batches.clear()
    return runtime


def logits(*indices: int) -> tuple[ClassLogit, ...]:
    """Return scalars of classes."""
    return tuple(ClassLogit(index) for index in indices)


def settled(method: Method, runtime: Runtime, baseline: float = 0.0) -> Method:
    """Return a method with the model's defaults filled in."""
    probed = runtime.probed
    layers = tuple(layer.name for layer in probed.layers)
    facts = ModelFacts(
        layers=layers,
        linear_heads=tuple(layer for layer in layers if layer in probed.linear_heads),
        attentions=probed.attentions,
        tokens=probed.tokens,
        baseline=baseline,
    )
    return method.settled(facts)


def folds_of(make: Callable[[], nn.Module]) -> list[nn.Module]:
    """Return three networks of one shape, each with weights of its own."""
    made = []
    for seed in range(3):
        net = make()
        torch.manual_seed(seed)
        with torch.no_grad():
            for each in net.parameters():
                each.add_(torch.randn_like(each) * 0.3)
        made.append(net)
    return made


def run_alone(plan: Plan[Any], runtime: Runtime, chunk: int = 1_000_000) -> Any:
    """Drive a plan with no scheduler: each pass alone, in chunks of rows."""
    answer = None
    while True:
        try:
            asked = plan.send(answer)
        except StopIteration as stop:
            return stop.value
        asks = asked if isinstance(asked, tuple) else (asked,)
        steps = tuple(_serve(ask, runtime, chunk) for ask in asks)
        answer = steps if isinstance(asked, tuple) else steps[0]


def stopped(plan: Plan[Any], runtime: Runtime, rows: int, chunk: int = 1_000_000) -> Any:
    """Drive a plan alone for so many rows, tell it that time is up, and return its result.

    Raises
    ------
    TimeUp
        It has nothing to return.
    """
    answer = None
    while True:
        asked = plan.send(answer)
        steps = []
        for ask in asked if isinstance(asked, tuple) else (asked,):
            count = ask.rows if isinstance(ask, Exclusive) else ask.rows.count
            if count > rows:
                return _told(plan, ask, runtime, rows, chunk)
            steps.append(_serve(ask, runtime, chunk))
            rows -= count
        answer = tuple(steps) if isinstance(asked, tuple) else steps[0]


def _told(plan: Plan[Any], ask: Any, runtime: Runtime, rows: int, chunk: int) -> Any:
    """Serve the first rows of a pass and no more."""
    if not isinstance(ask, Exclusive):
        _serve(ask, runtime, chunk, rows)
    try:
        plan.throw(TimeUp)
    except StopIteration as end:
        return end.value
    raise AssertionError("the plan asked for more when its time was up")


def _serve(ask: Any, runtime: Runtime, chunk: int, most: float = math.inf) -> Any:
    if isinstance(ask, Exclusive):
        return runtime.lend(ask, math.inf)
    work = work_of([ask])
    group = runtime.group(work)
    steps = []
    count = int(min(ask.rows.count, most))
    for start in range(0, count, chunk):
        segment = Segment(work, start, min(start + chunk, count))
        (served,) = runtime.serve(group, [segment])
        if isinstance(served, Exception):
            raise served
        step = step_of(ask, work, served, segment.start, segment.count)
        if ask.fold is None:
            steps.append(step)
        else:
            ask.fold(start, step)
    return joined(steps, count)


def attribute(
    method: Method, runtime: Runtime, image: Tensor, targets: tuple[Scalar, ...], **options: Any
) -> Maps:
    """Return a method's maps, with no scheduler."""
    maps = run_alone(method.plan(image, targets), runtime, **options)
    assert isinstance(maps, Maps)
    return maps


def through(scheduler: Scheduler, runtime: Runtime, *plans: Plan[Any], **options: Any) -> list[Any]:
    """Return the outcomes of one job that has the scheduler to itself."""
    job = options.pop("job", "job")
    future = scheduler.submit(job, runtime, [Planned(plan, 1) for plan in plans], **options)
    scheduler.run_until_idle()
    return list(future.result(0).outcomes)


def short_of_time(share: float, seconds: float = 1.0) -> dict[str, Any]:
    """Return options of a job whose time is up when this share of its rows is done."""
    deadline = time.monotonic() + seconds

    def wait(done: float) -> None:
        if done >= share:
            time.sleep(max(0.0, deadline - time.monotonic()))

    return {"deadline": deadline, "on_progress": wait}
