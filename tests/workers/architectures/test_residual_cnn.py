import pytest
import torch
from pydantic import ValidationError

from workers.architectures.base import ARCHITECTURES

SHAPE = {
    "classes": 3,
    "stem": 4,
    "widths": [4, 8, 8],
    "strides": [1, 2, 1],
    "dilations": [1, 1, 2],
}


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ARCHITECTURES["residual_cnn"].model_validate(SHAPE).build().eval()


def test_it_is_on_the_allow_list():
    assert "residual_cnn" in ARCHITECTURES
    assert not ARCHITECTURES.unavailable


def test_it_gives_one_logit_a_class(network):
    assert network(torch.zeros(2, 1, 32, 48)).shape == (2, 3)


def test_strides_alone_make_the_last_grid(network):
    assert network.blocks(network.stem(torch.zeros(1, 1, 32, 48))).shape == (1, 8, 8, 12)


def test_peaks_are_the_squares_of_the_rectified_last_block(network):
    features = network.blocks(network.stem(torch.randn(1, 1, 32, 32)))
    assert (features >= 0).all()
    torch.testing.assert_close(network.peaks(features), features**2)


def test_the_score_is_the_mean_of_the_class_activation_map(network):
    image = torch.randn(1, 1, 32, 32)
    features = network.peaks(network.blocks(network.stem(image)))
    maps = torch.einsum("nchw,kc->nkhw", features, network.head.weight)
    expected = maps.mean(dim=(2, 3)) + network.head.bias
    torch.testing.assert_close(network(image), expected)


def test_rows_of_a_batch_do_not_mix(network):
    images = torch.randn(2, 1, 32, 32, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(images)[0].sum(), images)
    assert gradient[0].abs().sum() > 0
    assert gradient[1].abs().sum() == 0


@pytest.mark.parametrize(
    "wrong",
    [{"kernel": 3}, {"classes": 0}, {"widths": [4]}, {"widths": []}, {"widths": "wide"}],
)
def test_arguments_outside_the_schema_are_refused(wrong):
    with pytest.raises(ValidationError):
        ARCHITECTURES["residual_cnn"].model_validate(SHAPE | wrong)
