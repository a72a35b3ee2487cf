"""Train the models of planted pictures: ``python -m examples.planted.train [id ...]``.

It writes their packages. One seed, one thread: the same machine gives the same weights.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from examples.dicom import Photometric
from examples.packaging import TOLERANCE, write_object, write_package
from examples.planted.calibration import write_cases
from examples.planted.dicom import plate
from examples.planted.recipe import Recipe
from examples.planted.recipes import RECIPES
from examples.radiographs import STEPS
from examples.training import fit_drawn, unseen
from service.domain.fields import Explain
from service.domain.files import SelfTest
from service.domain.inputs import Accept, Input, TabularInput
from service.domain.network import Layer

SEED, BATCH = 20240103, 20
MODELS: Final = Path("models")
TESTED: Final[tuple[tuple[str, int, Photometric], ...]] = (
    ("ordinary", 7_001, "MONOCHROME2"),
    ("inverted", 7_002, "MONOCHROME1"),
)
"""Self-tests: the name, the picture's seed, and how it is stored."""


def main() -> None:
    """Train each model, evaluate it and write its package."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description="Train the models of planted pictures.")
    parser.add_argument("id", nargs="*", help="which; all if none is named")
    asked = parser.parse_args().id
    for recipe in RECIPES:
        if asked and recipe.id not in asked:
            continue
        network = train(recipe)
        others = [recipe.draw(seed) for seed in unseen(SEED, 100)]
        said = recipe.judged(network, others)
        print(f"{recipe.id}: {said}")
        write(MODELS / recipe.id, recipe, network, said)


def train(recipe: Recipe) -> nn.Module:
    """Return a new network fitted to pictures, in evaluation mode."""
    drawn = [recipe.draw(SEED + number) for number in range(recipe.pictures)]

    def loss_of(outputs: Tensor, places: list[int]) -> Tensor:
        return recipe.loss(outputs, [drawn[k] for k in places])

    return fit_drawn(
        recipe.network,
        recipe.given(drawn),
        loss_of,
        seed=SEED,
        batch=BATCH,
        epochs=recipe.epochs,
        rate=recipe.rate,
    )


def write(folder: Path, recipe: Recipe, network: nn.Module, said: str) -> None:
    """Write the package to `folder`."""
    accept = Accept(modalities=("CR",), body_parts=(recipe.body_part,))
    beside = [TabularInput(kind="tabular", variables=recipe.variables)] if recipe.variables else []
    layers = () if recipe.layer is None else (Layer(name=recipe.layer),)
    labeled = recipe.task.startswith("classification")
    write_package(
        folder,
        network,
        recipe.network,
        tuple(_selftests(folder, recipe, network)),
        _CARD.format(title=recipe.title, card=recipe.card, said=said),
        id=recipe.id,
        title=recipe.title,
        intended_use="Demonstration and tests of Whylight on synthetic plates.",
        not_for="Clinical use of any kind: it was trained on drawings of no person.",
        task=recipe.task,
        inputs=(Input(accept=accept, steps=STEPS), *beside),
        outputs=(recipe.output,),
        explain=Explain(layers=layers, baseline=recipe.baseline),
        calibration=write_cases(folder, recipe.draw) if labeled else None,
    )


def _selftests(folder: Path, recipe: Recipe, network: nn.Module) -> Iterator[SelfTest]:
    for name, seed, photometric in TESTED:
        picture = recipe.draw(seed)
        path = f"selftest/{name}.dcm"
        data = plate(picture, f"selftest {recipe.id} {name}", recipe.body_part, photometric)
        write_object(folder / path, data, compress=True)
        with torch.no_grad():
            expected = recipe.said(network, *recipe.given([picture]))
        told = {"title": name.title(), "input": path, "tolerance": TOLERANCE}
        told["values"] = {each.key: picture.values[each.key] for each in recipe.variables}
        yield SelfTest.model_validate(told | expected)


_CARD = """# {title}

A small network trained on drawn plates. {card}
Where the evidence lies is known to the pixel. No person was imaged, and it is for no clinical use.

On 100 pictures that it was not trained on: {said}.

Written anew by `make train-planted`.
"""

if __name__ == "__main__":
    main()
