"""Small networks as ONNX files."""

import io
import warnings

import torch
from torch import Tensor, nn

from tests.support.engine import image_for, small_net


def exported(axes: int = 2, channels: int = 1, *, fixed: bool = False) -> bytes:
    """Return the small network of `float32` as ONNX; with `fixed`, for one row at a time."""
    image = image_for(axes, channels, dtype=torch.float32)
    return onnx_of(small_net(axes, channels, dtype=torch.float32), image, fixed=fixed)


def onnx_of(model: nn.Module, image: Tensor, *, fixed: bool = False) -> bytes:
    """Return a network that takes images like `image` as ONNX."""
    file = io.BytesIO()
    free = None if fixed else {"image": {0: "rows"}, "logits": {0: "rows"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (image[None],),
            file,
            dynamo=False,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes=free,
        )
    return file.getvalue()
