"""The shipped packages as a worker takes them in: decoded, tested, probed."""

import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from service.contents import inspect
from workers.loading import Loader
from workers.methods.base import METHODS
from workers.methods.occlusion import Occlusion
from workers.running import Planned
from workers.scheduler import Scheduler
from workers.slots import Slots
from workers.targets.scalars import ClassLogit

MODELS = Path(__file__).parents[3] / "models"


@pytest.fixture(scope="module")
def scheduler():
    scheduler = Scheduler()
    owner = threading.Thread(target=scheduler.run_forever, daemon=True)
    owner.start()
    yield scheduler
    scheduler.stop()
    owner.join(10)


@pytest.fixture(scope="module")
def slots():
    with Slots(1, address_space_bytes=4 << 30) as running:
        yield running


@pytest.fixture(scope="module")
def loader(scheduler, slots, tmp_path_factory):
    return Loader(scheduler, torch.device("cpu"), slots, tmp_path_factory.mktemp("scratch"))


@pytest.mark.parametrize(
    ("name", "methods"),
    [
        ("chest-phantom", {"saliency", "integrated_gradients", "grad_cam", "occlusion"}),
        ("chest-phantom-onnx", {"saliency", "integrated_gradients", "grad_cam", "occlusion"}),
    ],
)
def test_a_worker_loads_the_package_and_finds_what_it_can_do(loader, name, methods):
    manifest, contents = inspect(MODELS / name)
    entry = loader.load(manifest, contents.digest, MODELS / name).entry
    assert entry.state == "ready"
    assert [layer.name for layer in entry.layers] == ["peaks"]
    assert methods <= set(entry.methods)


@pytest.mark.parametrize("name", ["chest-phantom", "chest-phantom-onnx"])
def test_a_deterministic_worker_gives_the_same_bits_in_any_company(
    scheduler, slots, tmp_path, name
):
    loader = Loader(scheduler, torch.device("cpu"), slots, tmp_path, fixed_rows=3)
    manifest, contents = inspect(MODELS / name)
    runtime = loader.load(manifest, contents.digest, MODELS / name).runtime
    assert runtime.fixed_rows == 3
    images = torch.rand(3, *runtime.shape, generator=torch.Generator().manual_seed(4))
    method = Occlusion(window=64, stride=32)

    def asked(*chosen):
        """Hand jobs in before the first of them starts, so that they share batches."""
        together = threading.Event()
        scheduler.call(lambda: together.wait(10))
        reports = [
            scheduler.submit(f"{k}", runtime, [Planned(method.plan(image, (ClassLogit(1),)), 1)])
            for k, image in enumerate(chosen)
        ]
        together.set()
        return [report.result(60).outcomes[0].values for report in reports]

    (alone,) = asked(images[0])
    *_, beside = asked(images[1], images[2], images[0])
    assert torch.equal(alone, beside)


@pytest.fixture(scope="module")
def pair(loader):
    """The same network in both formats, each as its worker holds it."""
    models = []
    for name in ("chest-phantom", "chest-phantom-onnx"):
        manifest, contents = inspect(MODELS / name)
        models.append(loader.load(manifest, contents.digest, MODELS / name))
    return models


def test_the_network_serves_as_onnx_what_it_serves_in_torch(pair):
    torch_model, onnx_model = (model.entry for model in pair)
    deep_lift = {"deep_lift", "deep_lift_shap"}  # known to captum by modules alone
    assert set(torch_model.methods) - set(onnx_model.methods) <= deep_lift
    assert onnx_model.surrogate.difference < 1e-5


@pytest.mark.parametrize(
    "name",
    ["grad_cam", "class_activation_map", "saliency", "integrated_gradients", "guided_backprop"],
)
def test_a_map_of_the_onnx_package_equals_the_torch_packages(pair, scheduler, name):
    cases = load_file(MODELS / "chest-phantom" / "calibration" / "cases.safetensors")
    image, labels = cases["images"][:1].float()[0], cases["labels"][0]
    targets = (ClassLogit(int(labels.argmax())),)
    maps = []
    for model in pair:
        method = METHODS[name]().settled(model.facts)
        plan = Planned(method.plan(image, targets), 1)
        (outcome,) = scheduler.submit(name, model.runtime, [plan]).result(60).outcomes
        maps.append(outcome.values)
    span = maps[0].abs().max().item()
    assert span > 0
    torch.testing.assert_close(maps[1], maps[0], rtol=1e-3, atol=1e-3 * span)
