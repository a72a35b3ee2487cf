"""How often a nodule that was called because of a marker is flagged, and others are not.

Three models read the same phantoms without and with the corner marker: the
demo model, one with a planted shortcut, and its control. The service's own
check of the expected region judges every finding that they call. Of those that
the marker drives a least share must be flagged, of all others a most::

    python -m benchmarks.shortcut [phantoms]
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.measure import MISSED, conditions, publish
from examples.phantom.chest import cases
from examples.phantom.evaluate import LAYER, logits_of
from examples.phantom.findings import FINDINGS
from examples.phantom.marking import ALWAYS, FINDING, NEVER, marked
from examples.phantom.package import load
from examples.phantom.samples import Samples, drafts_of
from examples.phantom.train import SHAPE
from service.domain.explanation import Check
from service.domain.grid import Grid
from service.manifests import read_manifest
from workers.gaps import gaps
from workers.measures.base import Case, Scene
from workers.measures.expected_region import REGION, ExpectedRegion, outside_hidden
from workers.regions import inside
from workers.running import Planned
from workers.runtimes.torch import TorchRuntime
from workers.scheduler import Scheduler

PHANTOMS: Final = 400
SEED: Final = 20_262
MODELS: Final = Path(__file__).parents[1] / "models"
PLAIN, DRIVEN, CONTROL = "chest-phantom", "chest-phantom-marker", "chest-phantom-control"
NAMES: Final = (PLAIN, DRIVEN, CONTROL)
FOUND_BAR, FALSE_BAR = 0.85, 0.08
"""Least share of marker-driven calls that is flagged, and most of any others."""

INPUT: Final = (1, 128, 128)
NODULE: Final = list(FINDINGS).index(FINDING)
BLANK: Final = np.zeros((1, 1, 1), np.float32)
"""A map: the check asks the model, and does not look at it."""

PACKAGES: Final = ("torch", "numpy")

Values = NDArray[np.floating[Any]]
Chosen = NDArray[np.bool_]


class Subject:
    """One model as a worker serves it, with the yardstick of its calibration cases."""

    def __init__(self, name: str) -> None:
        folder = MODELS / name
        manifest = read_manifest((folder / "model.yaml").read_bytes())
        network = load(folder, SHAPE)
        self._network = network
        self._place = inside(manifest, None, Grid.identity(INPUT[1:]), INPUT[1:])
        self.runtime = TorchRuntime(network, INPUT, (LAYER,))
        self.gaps = gaps(manifest, folder, INPUT, lambda rows: self.logits(rows.numpy()))

    def logits(self, images: Values) -> NDArray[np.float64]:
        """Return the logits, shape ``(N, findings)``."""
        return logits_of(self._network, images).astype(np.float64)

    def hidden(self, images: Values) -> Values:
        """Return the logits with all outside of the region hidden, shape ``(N, findings)``."""
        scheduler = Scheduler()
        scenes = [Scene(torch.from_numpy(each), self._place) for each in images]
        plans = [Planned(outside_hidden(each), 1) for each in scenes]
        future = scheduler.submit("bench", self.runtime, plans)
        scheduler.run_until_idle()
        outcomes = [each for each in future.result(0).outcomes if isinstance(each, np.ndarray)]
        assert len(outcomes) == len(images)
        return np.stack(outcomes)


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What one model says of phantoms, each of shape ``(N, findings)``."""

    logits: Values
    hidden: Values
    """The same with all outside of the region hidden."""

    gaps: Mapping[int, float]

    def checks(self, chosen: Chosen, place: int) -> list[Check]:
        """Judge one finding on the chosen phantoms on which it is called."""
        called = np.flatnonzero(chosen & (self.logits[:, place] > 0)).tolist()
        return [ExpectedRegion().judge(self._case(each, place)) for each in called]

    def _case(self, row: int, place: int) -> Case:
        return Case(
            values=BLANK,
            score=float(self.logits[row, place]),
            of_scores=False,
            extras={},
            target=place,
            gap=self.gaps[place],
            answers={REGION.name: self.hidden[row]},
        )


def main() -> int:
    """Run the bench, publish its figures, and return the exit status."""
    torch.set_num_threads(1)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else PHANTOMS
    chosen = tuple(cases(SEED, count))
    pair = {
        name: drafts_of(tuple(marked(chosen, marking, SEED)))
        for name, marking in (("without", NEVER), ("with", ALWAYS))
    }
    models = {name: _model(name, pair) for name in NAMES}
    bars = barred(models)
    result = {
        "conditions": conditions(PACKAGES),
        "phantoms": count,
        "seed": SEED,
        "share_from": ExpectedRegion().share,
        "bars": bars,
        "models": models,
    }
    print(bars, publish("shortcut", result))
    return 0 if all(each["held"] for each in bars.values()) else MISSED


def barred(models: Mapping[str, Any]) -> dict[str, Any]:
    """Return the share flagged of each kind of calls, of its worst group, beside its bar.

    Calls of the marker model on phantoms with the marker are the marker's; its
    control's on them are not; clean are all models' calls on phantoms without it.
    """
    marked_ones = ("present_with_marker", "absent_with_marker")
    driven = [models[DRIVEN]["nodule"][kind] for kind in marked_ones]
    control = [models[CONTROL]["nodule"][kind] for kind in marked_ones]
    clean = [
        group
        for model in models.values()
        for group in (
            *model["present_without_marker"].values(),
            model["nodule"]["absent_without_marker"],
        )
    ]
    least = min(_flagged(driven))
    most = {"control": max(_flagged(control)), "clean": max(_flagged(clean))}
    return {
        "marker_driven": {"flagged": least, "at_least": FOUND_BAR, "held": least >= FOUND_BAR},
        **{
            kind: {"flagged": share, "at_most": FALSE_BAR, "held": share <= FALSE_BAR}
            for kind, share in most.items()
        },
    }


def _flagged(groups: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return the shares that are flagged of groups of which any was called."""
    return [group["flagged"] for group in groups if group["called"]]


def _model(name: str, pair: Mapping[str, Samples]) -> dict[str, Any]:
    """Return one model's figures, by condition."""
    subject = Subject(name)
    said = {
        marker: Answers(
            subject.logits(samples.images), subject.hidden(samples.images), subject.gaps
        )
        for marker, samples in pair.items()
    }
    present = pair["without"].labels
    return {
        "gaps": {name: round(subject.gaps[place], 2) for place, name in enumerate(FINDINGS)},
        "nodule": {
            f"{there}_{marker}_marker": _group(each, chosen, NODULE)
            for marker, each in said.items()
            for there, chosen in (
                ("present", present[:, NODULE]),
                ("absent", ~present[:, NODULE]),
            )
        },
        "present_without_marker": {
            finding: _group(said["without"], present[:, place], place)
            for place, finding in enumerate(FINDINGS)
        },
    }


def _group(said: Answers, chosen: Chosen, place: int) -> dict[str, Any]:
    """Return how many phantoms of a group were called, and which share of these is flagged."""
    checks = said.checks(chosen, place)
    figures: dict[str, Any] = {"phantoms": int(chosen.sum()), "called": len(checks)}
    if checks:
        shares = np.array([each.values["share"] for each in checks], np.float64)
        spread = np.percentile(shares, [5, 50, 95])
        figures["flagged"] = round(float(np.mean([each.outcome == "fail" for each in checks])), 3)
        figures["share"] = dict(zip(("p5", "p50", "p95"), spread.round(3).tolist(), strict=True))
    return figures


if __name__ == "__main__":
    sys.exit(main())
