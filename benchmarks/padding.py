"""What black margins do to the demo model, and whether the checks notice.

Drawn radiographs without a pneumothorax are read as they are and inside of black
margins. Of those that the model then calls a pneumothorax, Grad-CAM's map is held
against the probe bank, and the checks of the expected region and of margins judge them. Other
radiographs, as they are, tell the latter's false alarms::

    python -m benchmarks.padding [phantoms]
"""

import sys
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from benchmarks.measure import conditions, publish
from benchmarks.shortcut import BLANK, INPUT, MODELS, PACKAGES, PLAIN, SEED, Answers, Subject
from examples.phantom.chest import cases
from examples.phantom.evaluate import LAYER
from examples.phantom.findings import FINDINGS
from examples.phantom.samples import drafts_of
from service.domain.grid import Grid
from service.domain.trust import SUPPORTED_TO
from service.manifests import read_manifest
from workers.margins import Margins, known_margins, margins
from workers.measures.bank import Bank, bank
from workers.measures.base import Case
from workers.measures.bearing import bearings
from workers.measures.margins import Margins as Measure
from workers.methods.base import Maps
from workers.methods.grad_cam import GradCam
from workers.running import Planned
from workers.scheduler import Scheduler
from workers.targets.scalars import ClassLogit

PHANTOMS: Final = 60
ORDINARY: Final = 400
"""Other radiographs, as they are, that tell how often margins are flagged for nothing."""

MARGINS: Final = (0.0, 0.1, 0.25)
"""Width on each side, as a share of the radiograph's edge."""

PLACE: Final = list(FINDINGS).index("pneumothorax")

Images = NDArray[np.float32]


def padded(images: Images, margin: float) -> Images:
    """Return images inside of black margins, resized to what they were."""
    width = round(margin * images.shape[-1])
    wide = functional.pad(torch.from_numpy(images), (width,) * 4, value=float(images.min()))
    return np.asarray(functional.interpolate(wide, size=images.shape[2:], mode="area"))


def wide(images: Images, known: Margins | None) -> int:
    """Return of how many images the margins are flagged."""
    plain = Case(BLANK, 0.0, of_scores=False, extras={}, known_margins=known)
    checks = (Measure().judge(replace(plain, margins=margins(each))) for each in images)
    return sum(each.outcome == "fail" for each in checks)


def found(subject: Subject, images: Images, known: Margins | None) -> dict[str, Any]:
    """Return how many are called a pneumothorax, and what the checks say of these."""
    logits, flagged = subject.logits(images), wide(images, known)
    called = np.flatnonzero(logits[:, PLACE] > 0)
    if not len(called):
        return {"phantoms": len(images), "wide_margins": flagged, "called": 0}
    chosen = np.zeros(len(images), np.bool_)
    chosen[called] = True
    answers = Answers(logits, subject.hidden(images), subject.gaps)
    outside = [each.outcome == "fail" for each in answers.checks(chosen, PLACE)]
    supported = [supports(subject, images[each]) for each in called]
    return {
        "phantoms": len(images),
        "wide_margins": flagged,
        "called": len(called),
        "logits": [
            round(float(each), 1) for each in np.percentile(logits[called, PLACE], [0, 100])
        ],
        "supported": int(sum(supported)),
        "supported_and_not_flagged_outside": int(
            sum(a and not b for a, b in zip(supported, outside, strict=True))
        ),
    }


def supports(subject: Subject, image: Images) -> bool:
    """Tell whether the probe bank supports Grad-CAM's map of a pneumothorax."""
    tensor, scheduler = torch.from_numpy(image), Scheduler()
    plans = [bank(tensor), GradCam(layer=LAYER).plan(tensor, (ClassLogit(PLACE),))]
    job = scheduler.submit("bench", subject.runtime, [Planned(each, 1) for each in plans])
    scheduler.run_until_idle()
    known, maps = job.result(0).outcomes
    assert isinstance(known, Bank)
    assert isinstance(maps, Maps)
    values = maps.values[0].numpy()
    grid = Grid.partition(values.shape[1:], INPUT[1:])
    drops, score = known.drops[:, PLACE], float(known.scores[PLACE])
    bearing = bearings(values, grid, INPUT[1:], drops, score)
    return bearing.p is not None and bearing.p <= SUPPORTED_TO


def main() -> None:
    """Run the bench and publish its figures."""
    torch.set_num_threads(1)
    count = int(sys.argv[1]) if len(sys.argv) > 1 else PHANTOMS
    samples = drafts_of(tuple(cases(SEED, count)))
    without = samples.images[~samples.labels[:, PLACE].astype(bool)]
    subject, folder = Subject(PLAIN), MODELS / PLAIN
    (known,) = known_margins(read_manifest((folder / "model.yaml").read_bytes()), folder, INPUT)
    ordinary = drafts_of(tuple(cases(SEED + 1, ORDINARY)))
    found_ = {str(each): found(subject, padded(without, each), known) for each in MARGINS}
    result = {
        "conditions": conditions(PACKAGES),
        "seed": SEED,
        "widest_known": known,
        "ordinary": {"phantoms": ORDINARY, "wide_margins": wide(ordinary.images, known)},
        "margins": found_,
    }
    print(result, publish("padding", result))


if __name__ == "__main__":
    main()
