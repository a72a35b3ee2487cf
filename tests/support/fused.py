"""A small network that takes two tensors of numbers beside the image, and its like without."""

import io
import warnings

import torch
from torch import Tensor, nn

from tests.support.engine import CLASSES, LAYER, SIZES, SmallNet, image_for, small_net
from workers.runtimes.torch import TorchRuntime
from workers.tabular import Companions, Tabular

WIDTHS = (2, 1)
NAMES = ("age_and_sex", "dose")
IMAGE = "film"
"""Names of its inputs as a graph."""

VALUES = (0.75, -1.25, 0.5)
BASELINE = (0.25, 0.0, -0.5)


class FusedNet(nn.Module):
    """Features of an image meet numbers in a rectified layer: what each adds depends on all."""

    def __init__(self, image: SmallNet) -> None:
        super().__init__()
        self.features, self.pool = image.features, image.pool
        self.meet = nn.Linear(8 + sum(WIDTHS), 12)
        self.head = nn.Linear(12, CLASSES)

    def forward(self, image: Tensor, first: Tensor, second: Tensor) -> Tensor:
        seen = self.pool(self.features(image)).flatten(1)
        return self.head(torch.relu(self.meet(torch.cat([seen, first, second], 1))))


class Settled(nn.Module):
    """The same network with its numbers settled: a network of an image alone."""

    def __init__(self, network: FusedNet, values: Tensor) -> None:
        super().__init__()
        self.features, self.pool, self.meet, self.head = network.children()
        self.register_buffer("values", values)

    def forward(self, image: Tensor) -> Tensor:
        seen = self.pool(self.features(image)).flatten(1)
        beside = self.values.expand(len(image), -1)
        return self.head(torch.relu(self.meet(torch.cat([seen, beside], 1))))


def fused_net(dtype: torch.dtype = torch.float64) -> FusedNet:
    """Return a network whose scores depend much on image and numbers."""
    torch.manual_seed(5)
    network = FusedNet(small_net())
    with torch.no_grad():
        for layer in (network.meet, network.head):
            layer.weight.mul_(3.0)
    return network.to(dtype).eval()


def companions() -> Companions:
    """Return how it is given its numbers."""
    return Companions(torch.tensor(BASELINE, dtype=torch.float64), WIDTHS)


def fused_runtime(dtype: torch.dtype = torch.float64) -> TorchRuntime:
    """Return a runtime of it."""
    network = fused_net(dtype)
    companions().join(network)
    return TorchRuntime(network, (1, *SIZES[2]), (LAYER,), variables=sum(WIDTHS))


def settled_runtime() -> TorchRuntime:
    """Return a runtime of its like with the patient's numbers settled."""
    return TorchRuntime(Settled(fused_net(), tabular().values), (1, *SIZES[2]), (LAYER,))


def tabular(dtype: torch.dtype = torch.float64) -> Tabular:
    """Return the patient's numbers and their baselines, as the network takes them."""
    return Tabular(torch.tensor(VALUES, dtype=dtype), torch.tensor(BASELINE, dtype=dtype))


def parts(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return numbers ``(rows, 3)`` as the network's two tensors."""
    first, second = values.split(WIDTHS, dim=1)
    return first, second


def picture() -> Tensor:
    """Return an image for it."""
    return image_for()


class _Turned(nn.Module):
    """The network with the image as the last of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.net = fused_net(torch.float32)

    def forward(self, first: Tensor, second: Tensor, image: Tensor) -> Tensor:
        return self.net(image, first, second)


def fused_onnx() -> bytes:
    """Return the network as ONNX; its image is the last of its inputs."""
    file = io.BytesIO()
    numbers = parts(tabular(torch.float32).values[None])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Turned().eval(),
            (*numbers, picture().float()[None]),
            file,
            dynamo=False,
            input_names=[*NAMES, IMAGE],
            output_names=["logits"],
            dynamic_axes={name: {0: "rows"} for name in (*NAMES, IMAGE, "logits")},
        )
    return file.getvalue()
