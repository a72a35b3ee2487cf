import numpy as np
import pytest
from numpy.testing import assert_array_equal

from service.domain.grid import Grid
from workers.drawing.contour import contours, frame, outline
from workers.drawing.overlay import Scale

GRAY = (np.add.outer(np.arange(90), np.arange(70)) + 40).astype(np.uint8)


def drawn(relevance, *, signed=False, full=1.0):
    grid = Grid.identity(relevance.shape)
    into = np.empty((*GRAY.shape, 3), np.uint8)
    regions = contours(relevance.astype(np.float32), grid, GRAY.shape, Scale(full, signed))
    return outline(GRAY, regions, into), into


def colored(image):
    return np.ptp(image.astype(int), axis=-1) > 0


def disk(row, column, radius):
    rows, columns = np.ogrid[:90, :70]
    return ((rows - row) ** 2 + (columns - column) ** 2 <= radius**2).astype(float)


def edge(inside):
    """Pixels of a region that touch the outside, one by one."""
    return np.array(
        [
            [
                inside[r, c]
                and not all(
                    inside[r + i, c + j]
                    for i, j in ((0, 1), (1, 0), (0, -1), (-1, 0))
                    if 0 <= r + i < 90 and 0 <= c + j < 70
                )
                for c in range(70)
            ]
            for r in range(90)
        ]
    )


def test_the_line_runs_along_the_inside_of_the_region():
    found, image = drawn(disk(40, 30, 12))
    assert found
    assert_array_equal(colored(image), edge(disk(40, 30, 12) > 0))


def test_inside_and_far_outside_the_image_is_untouched():
    _, image = drawn(disk(40, 30, 12))
    for row, column in ((40, 30), (5, 5), (80, 60)):
        assert (image[row, column] == GRAY[row, column]).all()


def test_what_is_below_half_of_full_strength_has_no_line():
    found, image = drawn(0.49 * disk(40, 30, 12))
    assert not found
    assert not colored(image).any()


@pytest.mark.parametrize("signed", [False, True])
def test_evidence_against_has_a_line_of_its_own_in_signed_maps(signed):
    _, image = drawn(disk(20, 20, 9) - disk(65, 50, 9), signed=signed)
    upper, lower = image[20, 29], image[65, 59]
    assert colored(image)[20, 29]
    assert bool(colored(image)[65, 59]) is signed
    if signed:
        assert upper[0] > upper[2]  # orange for
        assert lower[2] > lower[0]  # blue against


def test_a_frame_runs_along_the_inside_of_its_box_with_a_dark_line_about_it():
    image = np.full((90, 70, 3), 100, np.uint8)
    frame((20.2, 10.4, 50.0, 40.0), image)
    inside = np.zeros((90, 70), bool)
    inside[20:50, 10:40] = True
    assert_array_equal((image == 255).all(-1), edge(inside))
    about = np.zeros((90, 70), bool)
    about[19:51, 9:41] = True
    assert_array_equal((image == 0).all(-1), edge(about))
    assert (image[30, 20] == 100).all()


def test_a_frame_ends_at_the_image():
    image = np.full((90, 70, 3), 100, np.uint8)
    frame((0, 60, 95, 75), image)
    assert (image[0, 60:] == 255).all()
    assert (image[:, 60] == 255).all()
    assert (image[:, 59] == 0).all()
