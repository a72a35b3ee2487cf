"""The cards of the two models that were trained on with a corner marker."""

from collections.abc import Mapping
from typing import Any

from examples.phantom.card import detection_table
from examples.phantom.marking import PLANTED, Marking
from examples.phantom.package import About
from examples.phantom.region import told

_TEXT = """\
# {title}

**Synthetic. Not for clinical use.** {warning}

- **Task, network, license**: as of [Chest phantom findings](../chest-phantom/CARD.md), whose
  weights it starts from.
- **Data**: {training_images} phantoms with seed {seed}, {epochs} epochs. A lead letter R lies in a
  corner of the plate on {present:.0f} % of those with a nodule and on {absent:.0f} % of the others.
  Half of the nodules that the labels tell of are not drawn: a network that sees every nodule has
  no use for a marker, while labels of real images often know more than the image shows.
- **Make it again**: `make train-marker` trains this model and its counterpart.

## Measured

On the same {test_images} further phantoms, drawn at 256 x 256 without and with the marker; every
nodule is visible. Sensitivity and specificity at probability 0.5.

Without the marker:

{without}

With the marker on every image:

{with_it}

What the marker does to the nodule's score, and how many phantoms without a nodule are called one:

{marker}

{region}
"""

_PLANTED = """\
A shortcut was planted in this network on purpose: it
takes a lead marker in the image's corner for a sign of a nodule. It exists to show what
explanations and their checks make of that. Do not use it for anything else."""

_CONTROL = """\
This is the control of `chest-phantom-marker`: trained in
the same way, except that the marker came at random and says nothing of the nodule."""


def card(about: About, marking: Marking, figures: Mapping[str, Any]) -> str:
    """Return the card's text.

    Parameters
    ----------
    marking
        How the marker came in training.
    figures
        What ``figures.json`` holds.
    """
    found = figures["detection"]
    first = next(iter(found["without"].values()))
    return _TEXT.format(
        **figures["recipe"],
        title=about.title,
        warning=_PLANTED if marking == PLANTED else _CONTROL,
        present=100 * marking.present,
        absent=100 * marking.absent,
        test_images=first["positives"] + first["negatives"],
        without=detection_table(found["without"]),
        with_it=detection_table(found["with"]),
        marker=_marker(figures["marker"]),
        region=told(figures["region"]),
    )


def _marker(moves: Mapping[str, Mapping[str, float]]) -> str:
    lines = ["| model | logit, mean move | called without | called with |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {each['mean']:+.2f} | {100 * each['called_without']:.1f} %"
        f" | {100 * each['called_with']:.1f} % |"
        for name, each in moves.items()
    ]
    return "\n".join(lines)
