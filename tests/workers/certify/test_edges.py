"""The control against slopes known on paper."""

import pytest
import torch

from workers.certify.edges import edges


def test_the_length_of_a_slope_is_that_of_the_plane():
    rows, columns = torch.meshgrid(torch.arange(9.0), torch.arange(7.0), indexing="ij")
    plane = (3 * rows - 4 * columns)[None]
    torch.testing.assert_close(edges(plane), torch.full((1, 9, 7), 5.0, dtype=torch.float64))


def test_channels_are_averaged_and_flat_images_have_no_edges():
    ramp = torch.arange(8.0).expand(8, 8)
    both = torch.stack([ramp, -ramp])
    assert not edges(both).any()
    assert not edges(torch.full((3, 8, 8), 2.5)).any()


@pytest.mark.parametrize("shape", [(1, 12), (1, 5, 6, 7)])
def test_any_number_of_axes_will_do(shape):
    assert edges(torch.randn(shape)).shape == shape
