"""The peers, imported so that they run where no matching torchvision exists.

pytorch-grad-cam imports torchvision when it is imported, for helpers that
Grad-CAM never calls; an empty stand-in takes its place. What Grad-CAM does call
(torch, numpy, OpenCV) is real. Install it without its dependencies, which would
replace torch::

    pip install --no-deps grad-cam && pip install -e '.[bench,monai]'
"""

import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from captum.attr import LayerGradCam
from torch import Tensor, nn

PACKAGES = ("torch", "captum", "grad-cam", "monai", "numpy", "opencv-python-headless")


def pytorch_grad_cam() -> Any:
    """Return the package; `ImportError` when it is not installed."""
    if "torchvision" not in sys.modules:
        sys.modules.update(_empty_torchvision())
    import pytorch_grad_cam as package  # noqa: PLC0415 - after the stand-in
    from pytorch_grad_cam.utils import model_targets  # noqa: PLC0415 - likewise

    assert model_targets
    return package


def pytorch_grad_cams(
    net: nn.Module, layer: str, on_grid: Callable[[Tensor], Tensor] | None = None
) -> Callable[[Tensor, Sequence[int]], Any]:
    """Return pytorch-grad-cam's maps of a batch, a class for each row."""
    package = pytorch_grad_cam()
    method = package.GradCAM(net, [net.get_submodule(layer)], reshape_transform=on_grid)
    target = package.utils.model_targets.ClassifierOutputTarget
    return lambda batch, classes: method(batch, [target(each) for each in classes])


def captum_cams(net: nn.Module, layer: str) -> Callable[[Tensor, int], Tensor]:
    """Return captum's map of one row, shape ``(*grid)``."""
    method = LayerGradCam(net, net.get_submodule(layer))

    def run(batch: Tensor, target: int) -> Tensor:
        values: Tensor = method.attribute(batch, target)[0, 0].detach()
        return values

    return run


def monai_cams(net: nn.Module, layer: str) -> Any:
    """Return MONAI's Grad-CAM of one layer."""
    from monai.visualize.class_activation_maps import GradCAM  # noqa: PLC0415 - for one program

    return GradCAM(nn_module=net, target_layers=layer)


def frozen(net: nn.Module, layer: str | None = None) -> nn.Module:
    """Return a network none of whose parameters wants a gradient, but for those of one layer.

    It is how captum, pytorch-grad-cam and MONAI are quickest: their graph then
    begins at the layer.
    """
    net.requires_grad_(requires_grad=False)
    if layer is not None:
        net.get_submodule(layer).requires_grad_()
    return net


def _empty_torchvision() -> dict[str, ModuleType]:
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    modules = {name: ModuleType(name) for name in names}
    for name in ("Compose", "Normalize", "ToTensor"):
        setattr(modules["torchvision.transforms"], name, object)
    modules["torchvision.transforms.functional"].resize = None  # type: ignore[attr-defined]
    return modules
