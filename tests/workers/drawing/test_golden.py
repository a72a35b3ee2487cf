"""Pictures as they were reviewed by eye, held by number; and what color-blind eyes see."""

import imagecodecs
import numpy as np
import pytest

from tests.support.golden import FOLDER, pictures
from workers.drawing.palettes import diverging, sequential

DRAWN = dict(pictures())

BLINDNESS = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""What linear sRGB looks like to whom a kind of cone lacks (Machado et al. 2009, severity 1)."""


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_as_it_was_reviewed(name):
    reviewed = imagecodecs.png_decode((FOLDER / f"{name}.png").read_bytes())
    assert np.abs(DRAWN[name].astype(int) - reviewed).max() <= 1


def test_every_reviewed_picture_is_still_drawn():
    assert {each.stem for each in FOLDER.iterdir()} == set(DRAWN)


def lab(colors, blindness=None):
    """CIE L*a*b* of sRGB, as someone with that color vision sees it."""
    c = colors / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    if blindness is not None:
        linear = np.clip(linear @ np.transpose(BLINDNESS[blindness]), 0, 1)
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    xyz = linear @ np.transpose(to_xyz) / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1
    )


@pytest.mark.parametrize("blindness", [None, *BLINDNESS])
def test_for_and_against_differ_to_every_eye(blindness):
    seen = lab(diverging(), blindness)
    for strength in (64, 127):  # half and full strength
        apart = np.linalg.norm(seen[128 + strength] - seen[127 - strength])
        assert apart > 20, (strength, apart)


@pytest.mark.parametrize("blindness", [None, *BLINDNESS])
def test_more_evidence_is_lighter_to_every_eye(blindness):
    assert (np.diff(lab(sequential(), blindness)[::16, 0]) > 0).all()
