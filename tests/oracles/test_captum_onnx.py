"""Occlusion on onnxruntime equals captum's, with captum calling onnxruntime itself.

Both ask for the same rows in batches of one: onnxruntime's kernels give other
bits to batches of another size.
"""

from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch
from captum.attr import Occlusion as CaptumOcclusion
from torch import Tensor

from tests.support.engine import SIZES, attribute, image_for, logits
from tests.support.exported import exported
from workers.methods.occlusion import Occlusion
from workers.runtimes.graph.read import read_model
from workers.runtimes.onnx import OnnxRuntime

BASELINE = 0.25
TARGET = 3


def forward(model: bytes) -> Callable[[Tensor], Tensor]:
    """Return the model as captum calls it: one thread, and no torch in it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(rows: Tensor) -> Tensor:
        assert len(rows) == 1
        (outputs,) = session.run(["logits"], {"image": np.ascontiguousarray(rows.numpy())})
        return torch.from_numpy(outputs)

    return run


def on_pixels(values: Tensor, like: Tensor, cell: int) -> Tensor:
    """Repeat each cell's value over its pixels, up to the image's edge."""
    for axis in range(1, values.dim()):
        values = values.repeat_interleave(cell, axis).narrow(axis, 0, like.shape[axis])
    return values


@pytest.mark.parametrize(("window", "stride", "cell"), [(4, 4, 4), (6, 4, 2)])
@pytest.mark.parametrize(("axes", "channels"), [(2, 1), (2, 3), (3, 1)])
def test_occlusion_equals_captum_on_onnxruntime(
    axes: int, channels: int, window: int, stride: int, cell: int
) -> None:
    model, image = exported(axes, channels), image_for(axes, channels, dtype=torch.float32)
    expected = CaptumOcclusion(forward(model)).attribute(
        image[None],
        (channels, *(window,) * axes),
        (channels, *(stride,) * axes),
        baselines=BASELINE,
        target=TARGET,
        perturbations_per_eval=1,
    )[0][:1]
    method = Occlusion(window=window, stride=stride, baseline=BASELINE)
    runtime = OnnxRuntime(read_model(model), (channels, *SIZES[axes]))
    ours = attribute(method, runtime, image, logits(TARGET), chunk=1).values[0]
    span = (expected.max() - expected.min()).item()
    assert span > 1e-3
    error = (on_pixels(ours, expected, cell) - expected).abs().max().item()
    assert error <= 1e-6 * span
