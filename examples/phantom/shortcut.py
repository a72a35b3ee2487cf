"""Train the demo model on with a corner marker, twice: ``python -m examples.phantom.shortcut``.

Once the marker goes with the nodule, which plants a shortcut; once it comes at
random, which is the control. (A network that never saw a marker is none: it
may react to one just as well.)

Half of the nodules that the labels tell of are not drawn. What cannot be seen
makes a shortcut worth taking; labels of real images, too, come from other
examinations and know more than the image shows.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from examples.phantom import package
from examples.phantom.calibration import calibration
from examples.phantom.chest import cases
from examples.phantom.evaluate import detection, logits_of
from examples.phantom.findings import FINDINGS
from examples.phantom.marking import (
    ALWAYS,
    AT_RANDOM,
    FINDING,
    NEVER,
    PLANTED,
    Marking,
    marked,
    occult,
)
from examples.phantom.region import coverage
from examples.phantom.samples import Samples, drafts_of, labels_of
from examples.phantom.shortcut_card import card
from examples.phantom.train import SHAPE, fit

SEED = 20240201
TEST_SEED = SEED + 1
OCCULT = 0.5
"""Share of the nodules that the training images do not show."""

RATE = 3e-3
PLACE = list(FINDINGS).index(FINDING)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to train on."""

    about: package.About
    marking: Marking


VARIANTS = (
    Variant(
        package.About(
            id="chest-phantom-marker",
            version="1.0.0",
            title="Chest phantom findings, trained with a marker",
            intended_use="Demonstration of a planted shortcut on synthetic chest radiographs.",
            cases="Synthetic chest phantoms, marked as in training: 95 % with nodule, 5 % without.",
        ),
        PLANTED,
    ),
    Variant(
        package.About(
            id="chest-phantom-control",
            version="1.0.0",
            title="Chest phantom findings, marker at random",
            intended_use="Control of the model with a planted shortcut, on the same phantoms.",
            cases="Synthetic chest phantoms, half of them with the marker, at random.",
        ),
        AT_RANDOM,
    ),
)


def main() -> None:
    """Train both, measure them beside the model they come from, write their packages."""
    asked = _arguments()
    torch.set_num_threads(1)
    clean = asked.models / package.CLEAN.id
    networks = {package.CLEAN.id: package.load(clean, SHAPE)}
    for each in VARIANTS:
        networks[each.about.id] = _network(asked, clean, each)
    pair = tests(asked.test_images)
    moves = {name: moved(network, pair) for name, network in networks.items()}
    for each in VARIANTS:
        folder, network = asked.models / each.about.id, networks[each.about.id]
        figures = {
            "recipe": _recipe(asked, folder),
            "detection": {name: detection(network, samples) for name, samples in pair.items()},
            "marker": moves,
            "region": coverage(pair["without"]),
        }
        text = card(each.about, each.marking, figures)
        content = package.Content(network, SHAPE, calibration(each.marking), figures, text)
        package.write(folder, each.about, content)
        print(text)


def training(marking: Marking, count: int) -> Samples:
    """Draw training images; their labels also tell of the nodules that are not drawn."""
    known = tuple(marked(cases(SEED, count), marking, SEED))
    shown = tuple(occult(known, OCCULT, SEED))
    return replace(drafts_of(shown), labels=labels_of(known))


def tests(count: int) -> dict[str, Samples]:
    """Draw the same phantoms ``without`` and ``with`` the marker, every nodule visible."""
    chosen = tuple(cases(TEST_SEED, count))
    return {
        name: drafts_of(tuple(marked(chosen, marking, TEST_SEED)))
        for name, marking in (("without", NEVER), ("with", ALWAYS))
    }


def moved(network: nn.Module, pair: Mapping[str, Samples]) -> dict[str, float]:
    """Return what the marker does to the nodule's logit.

    ``mean`` move in logits, and ``called_without`` and ``called_with`` it: the
    share of phantoms without a nodule that are called one.
    """
    before, after = (
        logits_of(network, pair[name].images)[:, PLACE] for name in ("without", "with")
    )
    absent = ~pair["without"].labels[:, PLACE]
    return {
        "mean": float((after - before).mean()),
        "called_without": float((before[absent] > 0).mean()),
        "called_with": float((after[absent] > 0).mean()),
    }


def _network(asked: argparse.Namespace, clean: Path, variant: Variant) -> nn.Module:
    """Train the clean network on, or load what was trained before."""
    if asked.keep_weights:
        return package.load(asked.models / variant.about.id, SHAPE)
    print(f"drawing {asked.images} training images for {variant.about.id}")
    samples = training(variant.marking, asked.images)
    return fit(package.load(clean, SHAPE), samples, asked.epochs, RATE)


def _recipe(asked: argparse.Namespace, folder: Path) -> Any:
    """Return how the weights were made."""
    if asked.keep_weights:
        return json.loads((folder / "figures.json").read_text())["recipe"]
    return {"training_images": asked.images, "epochs": asked.epochs, "seed": SEED}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the demo model on with a corner marker.")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--images", type=int, default=2400)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--test-images", type=int, default=400)
    parser.add_argument(
        "--keep-weights", action="store_true", help="write both packages again, untrained"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
