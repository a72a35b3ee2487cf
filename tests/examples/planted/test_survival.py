"""The survival model of drawn tumors: what it was trained on, and how good it is."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from examples.planted.pictures import HAZARDS, RADII, Course, Picture, tumor
from examples.planted.recipes import SURVIVAL
from examples.planted.survival import TIMES, concordance, error, loss, told

MODELS = Path(__file__).parents[3] / "models"
HAZARD = 0.3
"""Of each interval."""


@pytest.mark.parametrize(
    ("days", "progressed", "likelihood"),
    [
        (50.0, True, HAZARD),
        (400.0, True, (1 - HAZARD) ** 3 * HAZARD),
        (50.0, False, 1.0),
        (365.0, False, (1 - HAZARD) ** 3),
        (2000.0, True, (1 - HAZARD) ** len(TIMES)),
    ],
)
def test_the_loss_is_the_likelihood_of_what_was_seen(days, progressed, likelihood):
    course = Course(1e-3, days, progressed)
    logits = torch.full((1, len(TIMES)), math.log(HAZARD / (1 - HAZARD)))
    picture = Picture(tumor(1).stored, {}, course=course)
    assert loss(logits, [picture]).item() == pytest.approx(-math.log(likelihood), abs=1e-6)


def test_the_size_of_the_tumor_alone_tells_the_hazard():
    for radius, hazard in zip(RADII, HAZARDS, strict=True):
        for seed in range(4):
            course = tumor(seed, radius).course
            assert course is not None
            assert course.hazard == pytest.approx(hazard)


def test_it_is_right_on_patients_it_never_saw():
    network = SURVIVAL.network.build()
    network.load_state_dict(load_file(MODELS / SURVIVAL.id / "weights.safetensors"))
    pictures = [tumor(seed) for seed in range(60)]
    true = np.array([each.course.hazard for each in pictures])
    own = concordance(told(network.eval(), pictures), pictures)
    assert own > concordance(true, pictures) - 0.05 > 0.6
    assert error(network, pictures) < 0.08
