"""Train the models of planted pictures: ``python -m examples.planted.train [id ...]``.

It writes their packages. One seed, one thread: the same machine gives the same weights.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from examples.packaging import TOLERANCE, write_object, write_package
from examples.planted import boxes, presence
from examples.planted.calibration import write_cases
from examples.planted.dicom import plate
from examples.planted.pictures import (
    LATER,
    SHAPES,
    SIDE,
    WEIGHTS,
    Picture,
    hand,
    hand_of,
    lit,
    shapes,
)
from examples.training import Shuffled, fit
from service.domain.files import SelfTest
from service.domain.inputs import Accept, Input, StepChoice, TabularInput
from service.domain.manifest import Explain
from service.domain.network import Layer
from service.domain.outputs import ClassSpec, Output, ValueSpec
from service.domain.variable import Variable
from workers.architectures.base import Architecture
from workers.architectures.dense_detector import DenseDetector
from workers.architectures.plain_conv_unet import PlainConvUNet
from workers.architectures.residual_cnn import ResidualCnn
from workers.architectures.vit import Vit

SMALL: Final = 64
"""Rows and columns of a model's input."""

WIDTH, MEAN, STD = 2800.0, 0.4, 0.2
STEPS: Final = (
    StepChoice(name="invert_monochrome1"),
    StepChoice(name="window", parameters={"kind": "fixed", "center": WIDTH / 2, "width": WIDTH}),
    StepChoice(name="resize", parameters={"size": [SMALL, SMALL]}),
    StepChoice(name="normalize", parameters={"mean": [MEAN], "std": [STD]}),
)
SLOPE, INTERCEPT = 52.0, 114.0
"""From what the regression's network puts out to months."""

SEED, BATCH = 20240103, 20
MODELS: Final = Path("models")


@dataclass(frozen=True)
class Recipe:
    """One model: what it sees, what it is to say, and how its package tells of it."""

    id: str
    title: str
    task: str
    body_part: str
    network: Architecture
    layer: str | None
    """`None` has the layers chosen when the model is loaded."""

    output: Output
    draw: Callable[[int], Picture]
    loss: Callable[[Tensor, Sequence[Picture]], Tensor]
    said: Callable[..., dict[str, Any]]
    """What a self-test expects of a network on one picture's tensors."""

    judged: Callable[[nn.Module, Sequence[Picture]], str]
    """How good a network is on pictures that it was not trained on."""

    card: str
    epochs: int
    rate: float = 1e-2
    pictures: int = 400
    variables: tuple[Variable, ...] = ()
    """What the network takes beside the picture."""

    def given(self, pictures: Sequence[Picture]) -> tuple[Tensor, ...]:
        """Return the network's tensors of pictures: the images, and the values if it takes any."""
        rows = [
            [each.normalized(each.number(picture.values[each.key])) for each in self.variables]
            for picture in pictures
        ]
        return (inputs(pictures), *([torch.tensor(rows)] if self.variables else []))


def prepared(picture: Picture) -> NDArray[np.float32]:
    """Return the model's input of a picture, shape ``(1, SMALL, SMALL)``, as `STEPS` make it."""
    window = np.clip(picture.stored / WIDTH, 0, 1)
    small = window.reshape(SMALL, SIDE // SMALL, SMALL, SIDE // SMALL).mean((1, 3))
    return ((small - MEAN) / STD).astype(np.float32)[None]


def labels(picture: Picture) -> NDArray[np.int64]:
    """Return the class of each of the input's pixels: 0 for none, else the shape's number."""
    found = np.zeros((SMALL, SMALL), np.int64)
    for number, shape in enumerate(SHAPES, 1):
        if shape in picture.masks:
            edge = SIDE // SMALL
            share = picture.masks[shape].reshape(SMALL, edge, SMALL, edge).mean((1, 3))
            found[share >= 0.5] = number
    return found


def _of_ages(outputs: Tensor, pictures: Sequence[Picture]) -> Tensor:
    ages = torch.tensor([[each.age] for each in pictures])
    return functional.smooth_l1_loss(outputs, (ages - INTERCEPT) / SLOPE)


def _of_labels(outputs: Tensor, pictures: Sequence[Picture]) -> Tensor:
    return functional.cross_entropy(
        outputs, torch.from_numpy(np.stack(list(map(labels, pictures))))
    )


def _of_boxes(outputs: Tensor, pictures: Sequence[Picture]) -> Tensor:
    return boxes.loss(outputs, pictures, SMALL)


def _outputs(network: nn.Module, *given: Tensor) -> dict[str, Any]:
    return {"logits": _rounded(network(*given)[0])}


def _means(network: nn.Module, image: Tensor) -> dict[str, Any]:
    return {"logits": _rounded(network(image)[0].flatten(1).mean(1))}


def _found(network: nn.Module, image: Tensor) -> dict[str, Any]:
    (found,) = boxes.found(network, image)
    edge = SIDE // SMALL
    told = [{"of": shape, "box": _rounded(box * edge, 1)} for shape, box in found]
    best = network(image)[0, : len(SHAPES)].flatten(1).amax(1)
    return {"logits": _rounded(best), "boxes": told}


def _rounded(values: Tensor, digits: int = 5) -> list[float]:
    return [round(float(each), digits) for each in values]


def error(recipe: Recipe, network: nn.Module, pictures: Sequence[Picture]) -> float:
    """Return the mean error of the bone age, in months."""
    with torch.no_grad():
        ages = SLOPE * network(*recipe.given(pictures))[:, 0].numpy() + INTERCEPT
    return float(np.abs(ages - [each.age for each in pictures]).mean())


def overlap(network: nn.Module, pictures: Sequence[Picture]) -> float:
    """Return the Dice overlap of all pixels of both shapes together."""
    with torch.no_grad():
        found = network(inputs(pictures)).argmax(1).numpy()
    truth = np.stack(list(map(labels, pictures)))
    right = ((found == truth) & (truth > 0)).sum()
    return float(2 * right / ((found > 0).sum() + (truth > 0).sum()))


def right(network: nn.Module, pictures: Sequence[Picture]) -> tuple[float, float]:
    """Return which share of the shapes is found, and which share of the boxes is right."""
    return boxes.right(network, inputs(pictures), pictures)


def _found_and_right(network: nn.Module, pictures: Sequence[Picture]) -> str:
    shapes_found, boxes_right = right(network, pictures)
    return f"{shapes_found:.3f} of the shapes found, {boxes_right:.3f} of the boxes right"


BONE_AGE: Final = Recipe(
    id="bone-age-phantom",
    title="Bone age of drawn hands",
    task="regression",
    body_part="HAND",
    network=ResidualCnn(classes=1, stem=8, widths=(16, 16), strides=(1, 1), dilations=(1, 2)),
    layer="peaks",
    output=Output(
        name="values",
        values=(
            ValueSpec(
                key="bone_age",
                label="Bone age",
                unit="mo",
                slope=SLOPE,
                intercept=INTERCEPT,
                reference=INTERCEPT,
            ),
        ),
    ),
    draw=hand,
    loss=_of_ages,
    said=_outputs,
    judged=lambda network, others: f"mean error {error(BONE_AGE, network, others):.1f} months",
    card="The size of one growth center alone tells the age; shafts of any width lie about it.",
    epochs=30,
)
SHAPE_SEGMENTATION: Final = Recipe(
    id="shape-phantom",
    title="Drawn cysts and stones",
    task="segmentation",
    body_part="KIDNEY",
    network=PlainConvUNet(
        input_channels=1,
        num_classes=1 + len(SHAPES),
        features_per_stage=(8, 16, 24),
        kernel_sizes=((3, 3),) * 3,
        strides=((1, 1), (2, 2), (2, 2)),
        n_conv_per_stage=(1, 1, 1),
        n_conv_per_stage_decoder=(1, 1),
    ),
    layer="up.1",
    output=Output(
        decoding="voxel_classes",
        classes=(
            ClassSpec(
                key="background",
                label="Background",
                not_for_use="It is what is left where nothing is seen.",
            ),
            *(ClassSpec(key=each, label=each.title()) for each in SHAPES),
        ),
    ),
    draw=shapes,
    loss=_of_labels,
    said=_means,
    judged=lambda network, others: f"Dice overlap {overlap(network, others):.3f}",
    card="It finds dark disks (`cyst`) and bright squares (`stone`) in an ellipse of tissue.",
    epochs=6,
)
SHAPE_DETECTION: Final = Recipe(
    id="detector-phantom",
    title="Boxes about drawn cysts and stones",
    task="detection",
    body_part="KIDNEY",
    network=DenseDetector(
        classes=len(SHAPES), widths=(16, 24, 24, 24), strides=(2, 1, 1, 1), dilations=(1, 1, 2, 4)
    ),
    layer="trunk.2",
    output=Output(
        name="proposals",
        decoding="boxes",
        classes=tuple(
            ClassSpec(key=each, label=each.title(), threshold=boxes.THRESHOLD) for each in SHAPES
        ),
        boxes=boxes.DECODING,
    ),
    draw=shapes,
    loss=_of_boxes,
    said=_found,
    judged=_found_and_right,
    card="It puts a box about each dark disk (`cyst`) and each bright square (`stone`).",
    epochs=12,
    rate=5e-3,
)
BONE_AGE_BY_SEX: Final = Recipe(
    id="bone-age-by-sex-phantom",
    title="Bone age of drawn hands, by sex",
    task="regression",
    body_part="HAND",
    network=ResidualCnn(
        classes=1, stem=8, widths=(16, 16), strides=(1, 1), dilations=(1, 2), variables=2
    ),
    layer="peaks",
    output=BONE_AGE.output,
    draw=hand_of,
    loss=_of_ages,
    said=_outputs,
    judged=lambda network, others: (
        f"mean error {error(BONE_AGE_BY_SEX, network, others):.1f} months"
    ),
    card=f"The size of one growth center and the sex together tell the age: a boy's bones are"
    f" {LATER:.0f} months older at the same size. It is given the weight too, which tells nothing.",
    epochs=30,
    variables=(
        Variable(
            key="sex",
            label="Sex",
            codes={"F": 0.0, "M": 1.0},
            mean=0.5,
            std=0.5,
            baseline=0.5,
            source="PatientSex",
        ),
        Variable(
            key="weight",
            label="Weight",
            unit="kg",
            minimum=WEIGHTS[0],
            maximum=WEIGHTS[1],
            mean=sum(WEIGHTS) / 2,
            std=26.0,
            baseline=sum(WEIGHTS) / 2,
            default=sum(WEIGHTS) / 2,
            source="PatientWeight",
        ),
    ),
)
VIT: Final = Recipe(
    id="vit-phantom",
    title="Drawn cysts and stones, by a vision transformer",
    task="classification-multilabel",
    body_part="KIDNEY",
    network=Vit(
        classes=len(SHAPES), image=(SMALL, SMALL), patch=8, width=32, depth=3, heads=4, hidden=2
    ),
    layer=None,
    output=Output(
        classes=tuple(ClassSpec(key=each, label=each.title(), threshold=0.5) for each in SHAPES)
    ),
    draw=lit,
    loss=presence.loss,
    said=_outputs,
    judged=lambda network, others: (
        f"{100 * presence.accuracy(network, inputs(others), others):.1f} % of the answers are right"
    ),
    card="It tells dark disks (`cyst`) and bright squares (`stone`), whatever the light is.",
    epochs=40,
    rate=2e-3,
    pictures=1000,
)
RECIPES: Final = (BONE_AGE, BONE_AGE_BY_SEX, SHAPE_SEGMENTATION, SHAPE_DETECTION, VIT)


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
        others = [recipe.draw(SEED + 1_000_000 + number) for number in range(100)]
        said = recipe.judged(network, others)
        print(f"{recipe.id}: {said}")
        write(MODELS / recipe.id, recipe, network, said)


def train(recipe: Recipe) -> nn.Module:
    """Return a new network fitted to pictures, in evaluation mode."""
    drawn = [recipe.draw(SEED + number) for number in range(recipe.pictures)]
    given = recipe.given(drawn)
    torch.manual_seed(SEED)
    network = recipe.network.build()

    def loss_of(batch: Tensor) -> Tensor:
        outputs = network(*(each[batch] for each in given))
        return recipe.loss(outputs, [drawn[k] for k in batch.tolist()])

    batches = Shuffled(len(drawn), BATCH, recipe.epochs, torch.Generator().manual_seed(SEED))
    return fit(network, batches, loss_of, recipe.rate)


def inputs(pictures: Sequence[Picture]) -> Tensor:
    """Return models' inputs, shape ``(N, 1, SMALL, SMALL)``."""
    return torch.from_numpy(np.stack(list(map(prepared, pictures))))


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
        explain=Explain(layers=layers, baseline=-MEAN / STD),
        calibration=write_cases(folder, recipe.draw, prepared) if labeled else None,
    )


def _selftests(folder: Path, recipe: Recipe, network: nn.Module) -> Iterator[SelfTest]:
    for name, seed in (("ordinary", 7_001), ("other", 7_002)):
        picture = recipe.draw(seed)
        path = f"selftest/{name}.dcm"
        data = plate(picture, f"selftest {recipe.id} {name}", recipe.body_part)
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
