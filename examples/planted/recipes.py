"""The models of planted pictures."""

from typing import Any, Final

from torch import Tensor, nn

from examples.boxes import Detecting
from examples.packaging import rounded
from examples.planted import ages, outlines, presence, reconstruction, survival
from examples.planted.inputs import inputs
from examples.planted.pictures import (
    LATER,
    SHAPES,
    SIDE,
    WEIGHTS,
    hand,
    hand_of,
    lit,
    plain,
    shapes,
    tumor,
)
from examples.planted.recipe import Recipe
from examples.radiographs import SMALL
from service.domain.outputs import ClassSpec, EventSpec, Horizon, Output, ValueSpec
from service.domain.variable import Variable
from workers.architectures.conv_autoencoder import ConvAutoencoder
from workers.architectures.dense_detector import DenseDetector
from workers.architectures.plain_conv_unet import PlainConvUNet
from workers.architectures.residual_cnn import ResidualCnn
from workers.architectures.vit import Vit
from workers.deviation import Deviation


def _outputs(network: nn.Module, *given: Tensor) -> dict[str, Any]:
    return {"logits": rounded(network(*given)[0])}


def _means(network: nn.Module, image: Tensor) -> dict[str, Any]:
    """Of a network whose norms take out again nearly all that a window and normalization do.

    Either left out changes the means by no more than a hundredth; so the tolerance is finer.
    """
    return {"logits": rounded(network(image)[0].flatten(1).mean(1)), "tolerance": 4e-3}


def _error(network: nn.Module, image: Tensor) -> dict[str, Any]:
    return {"logits": rounded(Deviation().said(image, network(image))[0]), "tolerance": 2e-4}


DETECTING: Final = Detecting(
    {each: each.title() for each in SHAPES}, drawn=(SIDE, SIDE), small=(SMALL, SMALL)
)
BONE_AGE: Final[Recipe] = Recipe(
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
                slope=ages.SLOPE,
                intercept=ages.INTERCEPT,
                reference=ages.INTERCEPT,
            ),
        ),
    ),
    draw=hand,
    loss=ages.loss,
    said=_outputs,
    judged=lambda network, others: f"mean error {ages.error(BONE_AGE, network, others):.1f} months",
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
    loss=outlines.loss,
    said=_means,
    judged=lambda network, others: f"Dice overlap {outlines.overlap(network, others):.3f}",
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
    output=DETECTING.output,
    draw=shapes,
    loss=DETECTING.loss,
    said=DETECTING.said,
    judged=lambda network, others: DETECTING.judged(network, inputs(others), others),
    card="It puts a box about each dark disk (`cyst`) and each bright square (`stone`).",
    epochs=12,
    rate=5e-3,
)
BONE_AGE_BY_SEX: Final[Recipe] = Recipe(
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
    loss=ages.loss,
    said=_outputs,
    judged=lambda network, others: (
        f"mean error {ages.error(BONE_AGE_BY_SEX, network, others):.1f} months"
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
SURVIVAL: Final = Recipe(
    id="survival-phantom",
    title="Progression of drawn tumors",
    task="survival",
    body_part="KIDNEY",
    network=ResidualCnn(
        classes=len(survival.TIMES), stem=8, widths=(16, 16), strides=(1, 1), dilations=(1, 2)
    ),
    layer="peaks",
    output=Output(
        name="hazards",
        decoding="hazards",
        event=EventSpec(
            key="progression",
            label="Progression",
            unit="d",
            horizons=tuple(
                Horizon(time=each, threshold=0.5 if each == survival.YEAR else None)
                for each in survival.TIMES
            ),
        ),
    ),
    draw=tumor,
    loss=survival.loss,
    said=_outputs,
    judged=lambda network, others: (
        f"concordance {survival.concordance(survival.told(network, others), others):.2f}; the"
        f" probability of progression within a year is off by {survival.error(network, others):.3f}"
        " in the mean"
    ),
    card="The size of one bright tumor alone tells how soon it progresses; dark cysts tell nothing."
    " Patients were followed for a time that was drawn, too, and learning had to bear with that.",
    epochs=30,
    pictures=800,
)
AUTOENCODER: Final = Recipe(
    id="autoencoder-phantom",
    title="Plain drawn tissue, given back",
    task="reconstruction",
    body_part="BREAST",
    network=ConvAutoencoder(widths=(8, 16, 16, 4)),
    layer="up.2",
    output=Output(
        name="error",
        decoding="squared_error",
        values=(ValueSpec(key="reconstruction_error", label="Reconstruction error"),),
    ),
    draw=plain,
    loss=reconstruction.loss,
    said=_error,
    judged=lambda network, others: (
        "the error tells those with an anomaly from those without"
        f" (AUC {reconstruction.told_apart(network, others):.3f})"
    ),
    baseline=reconstruction.BASELINE,
    card="It gives back plain tissue in an even light, the only thing that it was trained on; a"
    " darker or brighter disk (`anomaly`) it does not give back.",
    epochs=20,
    rate=3e-3,
)
RECIPES: Final = (
    BONE_AGE,
    BONE_AGE_BY_SEX,
    SHAPE_SEGMENTATION,
    SHAPE_DETECTION,
    VIT,
    SURVIVAL,
    AUTOENCODER,
)
