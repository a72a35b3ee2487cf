"""Write what the demo's AI "issued": ``python -m examples.phantom.issued``.

In a hospital the explained result was issued earlier, by another system. Here
it is the bundled networks' own logits on the bundled studies, on a way apart
from the service's: what the demo compares its answers with.
"""

import json
from pathlib import Path

import torch

from examples.phantom.findings import FINDINGS
from examples.phantom.package import load
from examples.phantom.samples import read
from examples.phantom.study import BUNDLE, FOLDER
from examples.phantom.train import SHAPE

MODELS = Path(__file__).parents[2] / "models"
ISSUED = "issued.json"
DECIMALS = 3


def main() -> None:
    """Write the logits of every bundled network on every study."""
    names = sorted(each.parent.name for each in MODELS.glob("*/weights.safetensors"))
    document = {name: {each.name: logits(name, each.name) for each in BUNDLE} for name in names}
    (FOLDER / ISSUED).write_text(json.dumps(document, indent=2) + "\n")


def logits(model: str, study: str) -> dict[str, float]:
    """Return a network's logits on a bundled study, by finding."""
    image = torch.from_numpy(read((FOLDER / f"{study}.dcm").read_bytes()))
    with torch.no_grad():
        answer = load(MODELS / model, SHAPE)(image[None, None])[0].tolist()
    return {name: round(value, DECIMALS) for name, value in zip(FINDINGS, answer, strict=True)}


if __name__ == "__main__":
    main()
