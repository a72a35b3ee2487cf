"""Which images a package takes, by what its steps make of their channels."""

import pytest

from service.dicom.photometric import COLOR, GRAY, MONOCHROME
from service.domain.inputs import StepChoice
from tests.support.parcels import manifest
from workers.acceptance import fitted

COLORED = {*COLOR, "PALETTE COLOR"}
STACK = StepChoice(name="stack", parameters={"windows": [[40, 80], [60, 400], [600, 2800]]})
INVERTED = StepChoice(name="invert_monochrome1")


def scaled(channels):
    values = {"mean": [0.5] * channels, "std": [0.25] * channels}
    return StepChoice(name="normalize", parameters=values)


@pytest.mark.parametrize(
    ("steps", "taken", "left"),
    [
        ((INVERTED, scaled(1)), 1, {*MONOCHROME}),
        ((INVERTED, scaled(1)), 3, COLORED),
        ((scaled(3),), 3, GRAY | COLOR),
        ((STACK, scaled(3)), 3, {*MONOCHROME}),
        ((STACK, scaled(1)), 3, {*MONOCHROME}),
        ((scaled(2),), 2, {*MONOCHROME}),
    ],
)
@pytest.mark.parametrize("listed", [(), ("MONOCHROME2", "RGB"), ("MONOCHROME1", "PALETTE COLOR")])
def test_images_of_other_channels_than_the_models_are_left_out(steps, taken, left, listed):
    package = manifest(steps)
    image = package.image
    accept = image.accept.model_copy(update={"photometric_interpretations": listed})
    wide = package.model_copy(update={"inputs": (image.model_copy(update={"accept": accept}),)})
    strict = fitted(wide, taken).image.accept.photometric_interpretations
    taken_in = {each for each in GRAY | COLOR if not strict or each in strict}
    assert taken_in == {each for each in left if not listed or each in listed}
    assert fitted(wide, taken).image.steps == steps
