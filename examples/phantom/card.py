"""The demo model's card, with the figures that were measured."""

from collections.abc import Mapping
from typing import Any

from examples.phantom.region import told

Figures = Mapping[str, Any]
"""What ``figures.json`` holds: ``recipe``, ``detection``, ``pointing`` and ``region``."""

_TEXT = """\
# Chest phantom findings

**Synthetic. Not for clinical use.** This network has only ever seen drawn images of no
person. It exists so that Whylight can be tried and tested without patient data and without
a download, on images where the right answer and its place are known exactly.

- **Task**: five findings in a frontal chest radiograph phantom, independent of each other:
  nodule, consolidation, pleural effusion, cardiomegaly, pneumothorax. Output: five logits.
- **Network**: `residual_cnn`, {parameters} parameters; input 128 x 128, last grid 32 x 32,
  squared features, global average pooling, linear head.
- **Data**: `examples/phantom` draws them; {training_images} training images with seed {seed},
  {epochs} epochs. Masks mark where a finding changes the image, and nothing else; for
  cardiomegaly that is the whole enlarged heart.
- **Make it again**: `make train-demo`.
- **License**: Apache-2.0, weights included.

## Measured

On {test_images} further phantoms, written as 12-bit DICOM of 1,280 rows, every other one
MONOCHROME1, and read back. Sensitivity and specificity at probability 0.5.

{detection}

How often a map's peak lies in the lesion (or within 3 of the 128 input pixels of it), on true
positives; their number stands in brackets. Grad-CAM at `{layer}`; saliency and integrated
gradients averaged over 5 x 5 pixels; integrated gradients from black, 32 steps; occlusion
with a black window of 16 pixels, step 8, which cannot show a pneumothorax: that is black
already.

{pointing}

{region}

## Limits

- Real radiographs are far outside of what it knows: its answer on them means nothing.
- Findings are drawn clear and separate. High figures here say that the network and the maps
  work, not that any method would do as well on patients.
- No method points well at everything; that is why Whylight returns several.
"""


def card(figures: Figures, parameters: int, layer: str) -> str:
    """Return the card's text.

    Parameters
    ----------
    figures
        What ``figures.json`` holds.
    parameters
        Number of the network's parameters.
    layer
        Where Grad-CAM was taken.
    """
    found, pointed = figures["detection"], figures["pointing"]
    first = next(iter(found.values()))
    return _TEXT.format(
        **figures["recipe"],
        parameters=f"{parameters:,}",
        layer=layer,
        test_images=first["positives"] + first["negatives"],
        detection=detection_table(found),
        pointing=_pointing(pointed),
        region=told(figures["region"]),
    )


def detection_table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Return AUC, sensitivity and specificity of each finding as a table."""
    lines = ["| finding | n positive | AUC | sensitivity | specificity |", "|---|---|---|---|---|"]
    lines += [
        f"| {name} | {each['positives']} | {each['auc']:.4f}"
        f" | {each['sensitivity']:.3f} | {each['specificity']:.3f} |"
        for name, each in found.items()
    ]
    return "\n".join(lines)


def _pointing(pointed: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    methods = list(pointed)
    header = " | ".join(f"`{method}`" for method in methods)
    lines = [f"| finding | {header} |", "|---" * (1 + len(methods)) + "|"]
    for name in pointed[methods[0]]:
        rates = " | ".join(_rate(pointed[method][name]) for method in methods)
        lines.append(f"| {name} | {rates} |")
    return "\n".join(lines)


def _rate(figures: Mapping[str, float]) -> str:
    return f"{figures['hit_rate']:.2f} ({figures['true_positives']})"
