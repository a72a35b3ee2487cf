"""The shipped packages as a worker takes them in: decoded, tested, probed."""

import threading
from pathlib import Path

import pytest
import torch

from service.packages import inspect
from workers.loading import Loader
from workers.scheduler import Scheduler
from workers.slots import Slots

MODELS = Path(__file__).parents[3] / "models"


@pytest.fixture(scope="module")
def loader(tmp_path_factory):
    scheduler, slots = Scheduler(), Slots(1, address_space_bytes=4 << 30)
    owner = threading.Thread(target=scheduler.run_forever, daemon=True)
    owner.start()
    yield Loader(scheduler, torch.device("cpu"), slots, tmp_path_factory.mktemp("scratch"))
    scheduler.stop()
    owner.join(10)
    slots.close()


@pytest.mark.parametrize(
    ("name", "methods"),
    [
        ("chest-phantom", {"saliency", "integrated_gradients", "grad_cam", "occlusion"}),
        ("chest-phantom-onnx", {"occlusion"}),
    ],
)
def test_a_worker_loads_the_package_and_finds_what_it_can_do(loader, name, methods):
    manifest, contents = inspect(MODELS / name)
    entry = loader.load(manifest, contents.digest, MODELS / name).entry
    assert entry.state == "ready"
    assert [layer.name for layer in entry.layers] == ["peaks"]
    assert methods <= set(entry.methods)
