"""Train the demo model and write its package: ``python -m examples.phantom.train``.

One seed, one thread: the same machine gives the same weights. Draws its own
images; needs no download.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from examples import training
from examples.phantom import package
from examples.phantom.calibration import calibration
from examples.phantom.card import card
from examples.phantom.evaluate import LAYER, measure
from examples.phantom.marking import NEVER
from examples.phantom.region import coverage
from examples.phantom.samples import Samples, drafts, radiographs
from examples.training import Shuffled
from workers.architectures.residual_cnn import ResidualCnn

SHAPE = ResidualCnn(
    channels=1,
    classes=5,
    stem=16,
    widths=(16, 32, 32, 32, 32),
    strides=(1, 2, 1, 1, 1),
    dilations=(1, 1, 1, 2, 2),
)
"""The last grid is 32 x 32: a cell is smaller than the smallest nodule."""

SEED = 20240102
TEST_SEED = SEED + 1
BATCH = 50
SHIFT = 6
"""Training images are moved by up to this many pixels."""


def main() -> None:
    """Train, evaluate and write the package."""
    asked = _arguments()
    torch.set_num_threads(1)
    if asked.keep_weights:
        network = package.load(asked.out, SHAPE)
        figures = json.loads((asked.out / "figures.json").read_text())
    else:
        network, figures = _trained(asked)
    figures["region"] = coverage(drafts(TEST_SEED, asked.test_images))
    parameters = sum(each.numel() for each in network.parameters())
    text = card(figures, parameters, LAYER)
    content = package.Content(network, SHAPE, calibration(NEVER), figures, text)
    package.write(asked.out, package.CLEAN, content)
    print(text)


def _trained(asked: argparse.Namespace) -> tuple[nn.Module, dict[str, Any]]:
    """Return a new network and what was measured on it."""
    print(f"drawing {asked.images} training images")
    network = train(drafts(SEED, asked.images), asked.epochs)
    print(f"drawing and explaining {asked.test_images} test radiographs of full size")
    figures = measure(network, radiographs(TEST_SEED, asked.test_images))
    figures["recipe"] = {"training_images": asked.images, "epochs": asked.epochs, "seed": SEED}
    return network, figures


def train(samples: Samples, epochs: int) -> nn.Module:
    """Return a new network fitted to `samples`, in evaluation mode."""
    torch.manual_seed(SEED)
    return fit(SHAPE.build(), samples, epochs, rate=6e-3)


def fit(network: nn.Module, samples: Samples, epochs: int, rate: float) -> nn.Module:
    """Return `network` fitted to `samples`, in evaluation mode.

    Parameters
    ----------
    rate
        Largest learning rate, reached after a quarter of the steps.
    """
    random = torch.Generator().manual_seed(SEED)
    images, labels = torch.from_numpy(samples.images), torch.from_numpy(samples.labels).float()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # a fifth faster

    def loss_of(batch: Tensor) -> Tensor:
        logits = network(vary(images[batch], random))
        return functional.binary_cross_entropy_with_logits(logits, labels[batch])

    training.fit(network, Shuffled(len(images), BATCH, epochs, random), loss_of, rate, rising=0.25)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload] # as above
    return network


def vary(images: Tensor, random: torch.Generator) -> Tensor:
    """Return images moved by a few pixels, with gain and offset of their own."""
    down, right = torch.randint(0, 2 * SHIFT + 1, (2,), generator=random).tolist()
    rows, columns = images.shape[-2:]
    moved = functional.pad(images, (SHIFT,) * 4, mode="replicate")
    moved = moved[:, :, down : down + rows, right : right + columns]
    each = (len(images), 1, 1, 1)
    gain = 0.95 + 0.1 * torch.rand(each, generator=random)
    offset = 0.2 * torch.rand(each, generator=random) - 0.1
    return (gain * moved + offset).contiguous(memory_format=torch.channels_last)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the chest phantom demo model.")
    parser.add_argument("--out", type=Path, default=Path("models/chest-phantom"))
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--test-images", type=int, default=400)
    parser.add_argument(
        "--keep-weights", action="store_true", help="write the package of --out again, untrained"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
