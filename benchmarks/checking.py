"""What checking 42 maps of one image costs beside the bare forward passes of its probe bank.

Fourteen targets of three methods, on the grids that Grad-CAM, integrated
gradients and occlusion make: the bank through the scheduler, then everything
that the product computes of each map from it (`r`, `p`, and `r` for all other
classes). Figures are the least CPU time of the process over repeated runs,
parts interleaved. Bare passes run in the batches that the scheduler made, which
are small where a row takes long, and once more in batches of a fixed size. Of a
map the checks' square grid is made once for both measures, as in the product.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from benchmarks.maps import HEAD, SHAPE, trained
from benchmarks.resnet50 import resnet50
from service.domain.grid import Grid
from workers.measures.bank import BANK, Bank, bank, rows_of
from workers.measures.base import Case
from workers.measures.probe_bank import ProbeBank
from workers.measures.target_specific import TargetSpecific
from workers.running import Planned
from workers.runtimes.base import Segment, Served
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler

TARGETS: Final = 14
BARE: Final = ("forwards", "forwards_batched")


class Subject(NamedTuple):
    """A model, and the maps that three methods make of one of its images."""

    network: nn.Module
    shape: tuple[int, ...]
    maps: tuple[tuple[int, ...], ...]
    """Shape of each method's map, ``(C, *grid)``."""

    batch: int
    """Rows of the larger batches in which its bare passes run once more."""

    rounds: int
    """Runs of each part, of which the least counts."""


def demo() -> Subject:
    """Return the demo model with fourteen outputs: the smaller a model, the more checks weigh."""
    network = trained()
    head = network.get_submodule(HEAD)
    assert isinstance(head, nn.Linear)
    network.set_submodule(HEAD, nn.Linear(head.in_features, TARGETS))
    return Subject(network.eval(), SHAPE, ((1, 8, 8), SHAPE, (1, 15, 15)), 8, 40)


def ordinary() -> Subject:
    """Return a ResNet-50 at 224 pixels."""
    shape = (3, 224, 224)
    return Subject(resnet50(), shape, ((1, 7, 7), shape, (1, 27, 27)), 4, 2)


class Watched(TorchRuntime):
    """A runtime that notes the rows of its batches."""

    @override
    def serve(self, group: Hashable, segments: Sequence[Segment]) -> list[Served | Exception]:
        """Serve a batch, and note its size."""
        self.sizes.append(sum(each.count for each in segments))
        return super().serve(group, segments)

    sizes: list[int]


SUBJECTS: Final = {"demo_model": demo, "resnet50": ordinary}


def cost(subject: Subject) -> dict[str, float]:
    """Return milliseconds of the bare passes, of the bank and of all maps' checks, and the ratio.

    `ratio` is everything, the bank's passes among it, by the bare passes in the
    same batches; `ratio_to_fastest` by the quicker of both ways to batch them.
    """
    image = torch.randn(subject.shape, generator=torch.Generator().manual_seed(1))
    runtime, scheduler = Watched(subject.network, subject.shape), Scheduler()
    rows = rows_of(subject.shape)

    def banked() -> Bank:
        runtime.sizes = []
        ticket = scheduler.submit("job", runtime, [Planned(bank(image), rows)])
        scheduler.run_until_idle()
        (known,) = ticket.result(0).outcomes
        assert isinstance(known, Bank)
        return known

    banked()  # from the second on, the scheduler knows how long a row takes
    known = banked()
    cases = _cases(subject, known)

    def checked() -> None:
        for each in cases:
            vars(each).pop("square", None)  # what one measure made of a map, both use
        for measure in (ProbeBank(), TargetSpecific()):
            measure.judge_all(cases)

    fixed = [len(each) for each in torch.zeros(rows).split(subject.batch)]
    least = _least(
        {
            "forwards": _bare(subject, lambda: runtime.sizes),
            "forwards_batched": _bare(subject, lambda: fixed),
            "bank": banked,
            "statistics": checked,
        },
        subject.rounds,
    )
    whole = least["bank"] + least["statistics"]
    return {
        **{name: round(each, 1) for name, each in least.items()},
        "ratio": round(whole / least["forwards"], 3),
        "ratio_to_fastest": round(whole / min(least[name] for name in BARE), 3),
    }


def _cases(subject: Subject, known: Bank) -> list[Case]:
    """Return the maps as the measures get them."""
    random, extent = np.random.default_rng(1), subject.shape[1:]
    return [
        Case(
            values=random.normal(size=shape).astype(np.float32),
            score=float(known.scores[target]),
            of_scores=False,
            extras={},
            grid=Grid.partition(shape[1:], extent),
            extent=extent,
            target=target,
            answers={BANK.name: known},
        )
        for shape in subject.maps
        for target in range(TARGETS)
    ]


def _bare(subject: Subject, sizes: Callable[[], list[int]]) -> Callable[[], object]:
    """Return a run of nothing but the network, in batches of `sizes` at that moment."""
    count = rows_of(subject.shape)
    images = torch.randn(count, *subject.shape, generator=torch.Generator().manual_seed(2))

    @torch.no_grad()
    def run() -> None:
        for each in images.split(sizes()):
            subject.network(each)

    return run


def _least(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the least milliseconds of CPU time of each."""
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            began = time.process_time()
            run()
            spent[name].append(1000 * (time.process_time() - began))
    return {name: min(each) for name, each in spent.items()}
