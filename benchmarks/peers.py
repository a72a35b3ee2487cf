"""The peers, imported so that they run where no matching torchvision exists.

pytorch-grad-cam imports torchvision when it is imported, for helpers that
Grad-CAM never calls; an empty stand-in takes its place. What Grad-CAM does call
(torch, numpy, OpenCV) is real. Install it without its dependencies::

    pip install --no-deps grad-cam && pip install -e '.[bench]'
"""

import sys
from types import ModuleType
from typing import Any


def pytorch_grad_cam() -> Any:
    """Return the package; `ImportError` when it is not installed."""
    if "torchvision" not in sys.modules:
        sys.modules.update(_empty_torchvision())
    import pytorch_grad_cam as package  # type: ignore[import-untyped]  # noqa: PLC0415 - after the stand-in
    from pytorch_grad_cam.utils import model_targets  # type: ignore[import-untyped]  # noqa: PLC0415 - likewise

    assert model_targets
    return package


def _empty_torchvision() -> dict[str, ModuleType]:
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    modules = {name: ModuleType(name) for name in names}
    for name in ("Compose", "Normalize", "ToTensor"):
        setattr(modules["torchvision.transforms"], name, object)
    modules["torchvision.transforms.functional"].resize = None  # type: ignore[attr-defined]
    return modules
