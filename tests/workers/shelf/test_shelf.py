import time
from collections.abc import Callable
from typing import Any

import onnx
import pytest
import torch
from torch import nn

from service.domain.precision import Precision
from service.errors.base import Kind
from service.errors.jobs import StoreUnavailable
from service.packages import ModelPackages
from service.settings import RemoteSettings
from tests.support.dead_store import dead_store
from tests.support.exported import onnx_of, write_onnx_package, write_remote_package
from tests.support.hospital import register
from tests.support.small_model import CLASSES, LAYER, NETWORK, SIDE, network
from tests.workers.shelf.conftest import Room
from workers.catalog import catalog
from workers.methods.integrated_gradients import IntegratedGradients


def spoil_head(value: float) -> Any:
    """Return what fills the last layer's bias with `value`."""

    def spoil(model: nn.Module) -> None:
        nn.init.constant_(model.get_parameter("head.bias"), value)

    return spoil


def test_a_sound_package_is_ready_with_what_was_found_out(room: Room) -> None:
    record = room.register()
    entry = room.entry(record)
    assert entry.state == "ready"
    assert entry.failure is None
    assert room.shelf.ready() == (record.package,)
    assert [(layer.name, layer.shape) for layer in entry.layers] == [(LAYER, (16, 12, 12))]
    assert [each.key for each in entry.classes] == list(CLASSES)
    assert {"saliency", "grad_cam", "integrated_gradients", "occlusion"} <= set(entry.methods)
    # a square stands before the mean, and there are no tokens
    refused = {"class_activation_map", "attention_rollout", "gradient_attention"}
    assert set(entry.refused) == refused
    assert entry.row_seconds["forward"] > 0
    assert entry.row_seconds["gradient"] > 0
    assert entry.method_rows["integrated_gradients"] == {"forward": 2, "gradient": 32}
    windows = (1 + (SIDE - 16) // 8) ** 2
    assert entry.method_rows["occlusion"] == {"forward": windows + 1, "gradient": 0}


def test_the_entry_tells_what_was_measured_and_follows_what_is_asked(room: Room) -> None:
    record = room.register()
    before = room.entry(record).certificates
    assert {each.method for each in before} == set(room.entry(record).methods)
    assert {(each.outcome, each.reason, each.default) for each in before} == {
        ("not_certifiable", "no_calibration_set", True)
    }
    steps = IntegratedGradients(steps=4, baseline=0.0)
    room.shelf.get(record.package).records.record(steps)
    *_, last = room.shelf.entries()[record.package].certificates
    assert (last.method, last.parameters["steps"], last.default) == (steps.name, 4, False)


def test_the_catalog_tells_what_a_package_explains_when_nobody_says(room: Room) -> None:
    explain = {"default_targets": [{"kind": "class", "of": "top1"}]}
    entry = room.entry(room.register(changes={"explain": explain}))
    assert [each.of for each in entry.default_targets] == ["top1"]


def test_a_package_may_allow_some_methods_alone(room: Room) -> None:
    entry = room.entry(room.register(changes={"explain": {"methods": ["saliency"]}}))
    assert entry.methods == ("saliency",)
    assert "'explain.methods'" in entry.refused["occlusion"]


def test_a_package_that_allows_what_is_no_method_is_told_the_nearest(room: Room) -> None:
    record = room.register(changes={"explain": {"methods": ["saliency", "gradcam"]}})
    assert "grad_cam" in room.refusal(record)


def test_a_package_that_names_no_layer_gets_the_deepest_with_the_reason(room: Room) -> None:
    entry = room.entry(room.register(changes={"explain": {"baseline": 0.0}}))
    assert entry.state == "ready"
    assert entry.layers[0].name == "peaks"
    assert "names no layer" in entry.layers[0].reason
    assert "class_activation_map" in entry.methods


def test_the_catalog_tells_of_every_part(room: Room) -> None:
    room.register()
    room.shelf.sync()
    told = catalog(room.shelf.entries().values())
    assert [model.name for model in told.models] == ["small"]
    steps = {m.name: m for m in told.methods}["integrated_gradients"].parameters
    assert steps["properties"]["steps"]["maximum"] == 512  # type: ignore[index,call-overload]
    assert {"integrity", "completeness"} <= {measure.name for measure in told.measures}
    assert {"dicom_sc", "json", "npy", "png"} <= {each.name for each in told.formats}
    assert told.unavailable == {}


def test_a_model_whose_layers_are_not_there_is_not_offered_for_grad_cam(room: Room) -> None:
    changes = {"explain": {"layers": [{"name": "nowhere"}]}}
    entry = room.entry(room.register(changes=changes))
    assert entry.state == "ready"
    assert "grad_cam" not in entry.methods
    assert "layer gradient" in entry.refused["grad_cam"]
    assert "nowhere" in entry.refused["grad_cam"]
    assert "explain.layers" in entry.refused["grad_cam"]
    assert "saliency" in entry.methods


def test_a_failing_self_test_keeps_a_model_from_being_served(room: Room) -> None:
    sound = room.register("sound")
    tests = [{"title": "plain", "input": "plain.dcm", "logits": [9.0, 9.0, 9.0], "tolerance": 1e-3}]
    wrong = room.register("wrong", changes={"selftests": tests})
    assert "self-test" in room.refusal(wrong)
    failure = room.shelf.entries()[wrong.package].failure
    assert failure is not None
    assert failure.facts["selftest"] == "plain"
    assert failure.kind is Kind.OURS
    assert room.shelf.ready() == (sound.package,)


def test_a_self_test_of_wrong_preprocessing_fails(room: Room) -> None:
    """Without the inversion, the MONOCHROME1 self-test gets another answer."""
    steps = [{"name": "normalize", "parameters": {"mean": [2048.0], "std": [1024.0]}}]
    changes = {"inputs": [{"accept": {"modalities": ["CR"]}, "steps": steps}]}
    record = room.register(changes=changes)
    assert "self-test" in room.refusal(record)
    failure = room.shelf.entries()[record.package].failure
    assert failure is not None
    assert failure.facts["selftest"] == "inverted"


def test_a_model_whose_trial_runs_take_too_long_is_told_what_to_set(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = room.register("quick", seed=1)
    assert room.entry(served).state == "ready"
    monkeypatch.setattr(room.shelf._loader, "_limit", 0.0)
    assert "WHYLIGHT_WORKER__LOAD_LIMIT" in room.refusal(room.register("slow"))
    assert served.package in room.shelf.ready()


def test_weights_that_are_not_numbers_are_found_by_the_self_test(room: Room) -> None:
    record = room.register(break_weights=spoil_head(float("nan")))
    assert room.entry(record).state == "unavailable"


def test_weights_of_an_onnx_file_that_are_not_numbers_are_named(room: Room) -> None:
    spoiled = network()
    nn.init.constant_(spoiled.get_parameter("head.weight"), float("nan"))
    content = onnx_of(spoiled, torch.zeros(1, SIDE, SIDE))
    folder = write_onnx_package(room.folder / "spoiled", {"model.onnx": content})
    failure = room.entry(register(room.store, folder)).failure
    assert failure is not None
    assert "are no numbers (NaN or infinite)" in failure.detail
    assert failure.facts == {"field": "/files", "tensors": ["head.weight"]}


UNET = {"in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]}


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ({"name": "residual_cn", "parameters": {}}, "The nearest names are: residual_cnn."),
        ({"name": "residual_cnn", "parameters": {"classes": 3, "stemm": 1}}, "names are: stem."),
        ({"name": "unet", "parameters": {**UNET, "spatial_dims": 7}}, "Expected 1, 2 or 3."),
        ({"name": "residual_cnn", "parameters": {**NETWORK, "stem": 9}}, "do not fit"),
    ],
)
def test_a_network_that_cannot_be_built_is_told(
    room: Room, architecture: dict[str, Any], words: str
) -> None:
    assert words in room.refusal(room.register(changes={"architecture": architecture}))


def test_an_unknown_step_is_told(room: Room) -> None:
    steps = [{"name": "crop", "parameters": {"size": [8, 8]}}, {"name": "rezise"}]
    record = room.register(changes={"inputs": [{"accept": {"modalities": ["CR"]}, "steps": steps}]})
    assert "There is no step 'rezise'" in room.refusal(record)
    failure = room.entry(record).failure
    assert failure is not None
    assert failure.facts["field"] == "/inputs/0/steps/1/name"


def test_a_self_test_that_cannot_be_decoded_is_told(room: Room) -> None:
    record = room.register(image_tags={"BitsAllocated": 12})
    room.refusal(record)
    failure = room.shelf.entries()[record.package].failure
    assert failure is not None
    assert failure.facts["selftest"] == "plain"
    assert failure.facts["reason"] == "absurd_dimensions"


def test_a_damaged_file_in_the_store_is_refused_before_it_is_parsed(room: Room) -> None:
    record = room.register()
    path = f"models/packages/{record.package}/files/weights.safetensors"
    data = bytearray(room.store.get(path))
    data[-1] ^= 1
    room.store.put(path, bytes(data))
    assert "damaged" in room.refusal(record)
    assert not list((room.folder / "cache").rglob("weights.safetensors"))


def test_a_removed_package_leaves_the_shelf_and_the_disk(room: Room) -> None:
    record = room.register()
    assert room.entry(record).state == "ready"
    assert list((room.folder / "cache").iterdir())
    room.packages.remove("small", "1.0.0")
    room.shelf.sync()
    assert room.shelf.entries() == {}
    assert room.shelf.ready() == ()
    assert list((room.folder / "cache").iterdir()) == []


def test_a_model_in_use_outlives_its_removal(room: Room) -> None:
    record = room.register()
    room.shelf.sync()
    with room.shelf.lent(record.package, lambda: None) as model:
        room.packages.remove("small", "1.0.0")
        room.shelf.sync()
        assert model.runtime.probed.abilities  # who uses it may go on
    assert model.replicas.all() == ()


def test_a_silent_store_changes_nothing(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    record = room.register()
    room.shelf.sync()
    room.shelf._packages = ModelPackages(dead_store(monkeypatch))
    with pytest.raises(StoreUnavailable):
        room.shelf.sync()
    assert room.shelf.ready() == (record.package,)
    assert room.shelf.entries()[record.package].state == "ready"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_model_that_was_changed_while_it_ran_is_loaded_anew(
    room: Room, precision: Precision
) -> None:
    record = room.register()
    room.shelf.sync()
    before = room.shelf.get(record.package)
    room.shelf.reload(before.replicas.at(precision))
    assert room.shelf.ready() == ()
    room.shelf.sync()
    after = room.shelf.get(record.package)
    assert after.runtime is not before.runtime
    assert after.entry.abilities == before.entry.abilities


def test_the_entry_tells_to_whom_a_package_is_given_and_follows(room: Room) -> None:
    record = room.register()
    assert room.entry(record).tenants == ()
    path = f"models/index/{record.name}/{record.version}.json"
    given = record.model_copy(update={"tenants": ("clinic",)})
    room.store.put(path, given.model_dump_json().encode())
    assert room.entry(record).tenants == ("clinic",)


def test_a_layer_that_is_not_there_is_told_beside_one_that_is(room: Room) -> None:
    changes = {"explain": {"layers": [{"name": LAYER}, {"name": "nowhere"}]}}
    entry = room.entry(room.register(changes=changes))
    assert "grad_cam" in entry.methods
    assert entry.refused_layers["nowhere"] == "The network has no layer 'nowhere'."


def rename(model: nn.Module) -> None:
    """Give a part another name."""
    model.trunk = model.blocks
    del model.blocks
    model.forward = lambda image: torch.zeros(len(image), len(CLASSES))  # type: ignore[method-assign]


WIDER = {"name": "residual_cnn", "parameters": {**NETWORK, "stem": 12}}

BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"changes": {"architecture": WIDER}}, "'architecture.parameters' the sizes", "shapes"),
    ({"break_weights": rename}, "'key_map' maps", "unknown"),
    ({"break_weights": spoil_head(float("nan"))}, "no numbers", "tensors"),
    ({"changes": {"key_map": {"layout": "keras"}}}, "no such layout", "known"),
    ({"changes": {"head": {"layers": [{"kind": "relu"}]}}}, "do not fit", "unknown"),
    ({"changes": {"architecture": {"name": "unheard_of"}}}, "no network 'unheard_of'", "errors"),
]


@pytest.mark.parametrize(("spoilt", "words", "fact"), BAD)
def test_a_bad_package_is_told_and_the_others_are_served(
    room: Room, spoilt: dict[str, Any], words: str, fact: str
) -> None:
    sound = room.register("sound")
    bad = room.register("bad", **spoilt)
    assert words in room.refusal(bad)
    failure = room.shelf.entries()[bad.package].failure
    assert failure is not None
    assert fact in failure.facts
    assert str(failure.facts["field"]).startswith("/")
    assert room.shelf.ready() == (sound.package,)
    later = room.register("later")
    room.shelf.sync()
    assert set(room.shelf.ready()) == {sound.package, later.package}


def test_a_model_on_a_server_that_nobody_listed_is_refused_and_the_others_are_served(
    room: Room,
) -> None:
    folder = write_remote_package(room.folder / "there", endpoint="http://127.0.0.1:9")
    there, small = register(room.store, folder), room.register()
    assert "WHYLIGHT_REMOTE__ENDPOINTS" in room.refusal(there)
    failure = room.entry(there).failure
    assert failure is not None
    assert (failure.code, failure.facts["field"]) == ("remote_not_allowed", "/remote/endpoint")
    assert room.entry(small).state == "ready"


def foreign(model: Any) -> None:
    """Have the last node be of an operator that nobody knows."""
    model.graph.node[-1].op_type = "PerpetuumMobile"


def short(model: Any) -> None:
    """Have a tensor hold fewer numbers than its shape says."""
    model.graph.initializer[0].raw_data = b""


def outlandish(model: Any) -> None:
    """Have an operator of a domain that nobody knows."""
    model.graph.node[-1].op_type = "NoSuchOp"
    model.graph.node[-1].domain = "my.ops"
    model.opset_import.append(onnx.helper.make_opsetid("my.ops", 1))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (foreign, "PerpetuumMobile (domain 'ai.onnx')"),
        (outlandish, "NoSuchOp (domain 'my.ops')"),
        (short, "it is damaged"),
    ],
)
def test_a_graph_that_cannot_be_loaded_is_told_and_the_others_are_served(
    room: Room, spoil: Callable[[Any], None], words: str
) -> None:
    model = onnx.load_from_string(onnx_of(network(), torch.zeros(1, SIDE, SIDE)))
    spoil(model)
    files = {"model.onnx": model.SerializeToString()}
    bad = register(room.store, write_onnx_package(room.folder / "graph", files))
    sound = room.register()
    assert "Export it again" in room.refusal(bad)
    assert words in room.refusal(bad)
    failure = room.entry(bad).failure
    assert failure is not None
    assert failure.facts["field"] == "/files"
    assert room.entry(sound).state == "ready"


@pytest.mark.parametrize("endpoint", ["lab", "http://127.0.0.1:9/lab/"])
def test_a_listed_server_is_found_by_name_and_by_address_and_tried_again(
    room: Room, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    room.shelf._loader._remote = RemoteSettings(endpoints={"lab": "http://127.0.0.1:9/lab"})
    there = register(room.store, write_remote_package(room.folder / "there", endpoint=endpoint))
    failure = room.entry(there).failure
    assert failure is not None
    assert (failure.code, failure.kind) == ("remote_unreachable", Kind.WAIT)
    tries: list[str] = []
    monkeypatch.setattr(room.shelf, "_take_in", lambda record: tries.append(record.package))
    room.shelf.sync()
    assert tries == []
    room.shelf._again[there.package] = time.monotonic()
    room.shelf.sync()
    assert tries == [there.package]
