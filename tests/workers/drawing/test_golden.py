"""Pictures as they were reviewed by eye, held by number; and what color-blind eyes see."""

import imagecodecs
import numpy as np
import pytest

from tests.support.golden import FOLDER, pages, pictures
from workers.drawing.palettes import diverging, sequential

DRAWN = dict(pictures())
PAGES = {name: (page, image.shape) for name, page, image in pages()}
BLOCK = 4

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


def reviewed(name):
    return imagecodecs.png_decode((FOLDER / f"{name}.png").read_bytes()).astype(float)


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_as_it_was_reviewed(name):
    assert np.abs(DRAWN[name] - reviewed(name)).max() <= 1


def blocks(page):
    """Means of small squares: another release of the letters' library may move an edge."""
    rows, columns = (length // BLOCK for length in page.shape[:2])
    whole = page[: rows * BLOCK, : columns * BLOCK]
    return whole.reshape(rows, BLOCK, columns, BLOCK, 3).mean(axis=(1, 3))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_with_legend_and_color_bar_is_as_it_was_reviewed(name):
    page, (rows, columns) = PAGES[name]
    before = reviewed(name)
    assert page.shape == before.shape
    assert np.abs(page[:rows, :columns] - before[:rows, :columns]).max() <= 1
    assert np.abs(blocks(page) - blocks(before)).max() <= 8


def test_every_reviewed_picture_is_still_drawn():
    assert {each.stem for each in FOLDER.iterdir()} == {*DRAWN, *PAGES}


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


def oklab(colors):
    """OKLab of sRGB by its author's matrices (Ottosson 2020): distances even to the eye."""
    c = colors / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    to_lms = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.cbrt(linear @ np.transpose(to_lms)) @ np.transpose(to_lab)


@pytest.mark.parametrize(
    ("colors", "unevenness"),
    [(sequential(), 1.3), (diverging()[128:], 1.2), (diverging()[127::-1], 1.2)],
    ids=["evidence", "for", "against"],
)
def test_even_steps_in_value_are_even_steps_to_the_eye(colors, unevenness):
    """From no evidence to the most, in steps of 16 levels, wherever they begin."""
    seen = oklab(colors)
    steps = np.linalg.norm(seen[16:] - seen[:-16], axis=1)
    assert steps.max() / steps.min() <= unevenness
