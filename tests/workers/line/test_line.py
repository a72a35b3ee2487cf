"""What a job's document says, compared with what the network says when asked directly."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
import yaml

from service import paths
from service.admission import admit
from service.domain.explanation import Explanation, Result, TargetLayer
from service.domain.job import Job, State
from service.domain.request import ExplanationRequest
from service.errors.base import Kind
from service.errors.studies import NotAcceptedByModel
from tests.support.hospital import TENANT, register, take_in
from tests.support.parcels import instance, study
from tests.support.phantom_dicom import encoded, of_pixels
from tests.support.small_model import (
    CLASSES,
    MEAN,
    SIDE,
    STD,
    entry_of,
    model_input,
    network,
    picture,
    write_image,
    write_package,
)
from tests.workers.line.conftest import House, served_by
from workers.model import FIRST

ALL_METHODS = ["saliency", "grad_cam", "integrated_gradients", "occlusion"]


def expected_logits() -> list[float]:
    with torch.no_grad():
        logits: list[float] = network()(model_input(picture(3))[None])[0].tolist()
    return logits


def result(document: Explanation, method: str, target: str) -> Result:
    (found,) = [
        each
        for each in document.results
        if each.method == method and each.target is not None and each.target.key == target
    ]
    return found


def array(house: House, record: Job, entry: Result) -> np.ndarray[Any, np.dtype[np.float32]]:
    (artifact,) = [each for each in entry.artifacts if each.format == "npy"]
    data = house.backends.store.get(paths.artifact(str(record.result), artifact.name))
    loaded: np.ndarray[Any, np.dtype[np.float32]] = np.load(io.BytesIO(data))
    return loaded


@pytest.fixture(scope="module")
def explained(house: House) -> tuple[Job, Explanation]:
    """One request that asks for everything."""
    return house.explain(
        house.image("ordinary"), methods=ALL_METHODS, artifacts=["json", "npy", "png", "dicom_sc"]
    )


def test_the_models_answer_is_the_networks_own(explained: tuple[Job, Explanation]) -> None:
    _, document = explained
    logits = expected_logits()
    assert [each.key for each in document.predictions] == list(CLASSES)
    assert [each.logit for each in document.predictions] == pytest.approx(logits, abs=1e-5)
    probabilities = torch.tensor(logits).sigmoid().tolist()
    assert [each.probability for each in document.predictions] == pytest.approx(
        probabilities, abs=1e-5
    )


def test_every_method_explains_every_target(explained: tuple[Job, Explanation]) -> None:
    record, document = explained
    assert record.state is State.SUCCEEDED
    assert document.state == "succeeded"
    assert not document.partial
    assert [(each.method, each.target and each.target.key) for each in document.results] == [
        (method, key) for method in ALL_METHODS for key in CLASSES
    ]
    assert {each.status for each in document.results} == {"succeeded"}


def test_the_map_is_the_gradient_that_autograd_gives(
    house: House, explained: tuple[Job, Explanation]
) -> None:
    record, document = explained
    image = model_input(picture(3))[None].requires_grad_()
    network()(image)[0, 1].backward()
    assert image.grad is not None
    found = array(house, record, result(document, "saliency", CLASSES[1]))
    np.testing.assert_allclose(found, image.grad[0].numpy(), rtol=1e-4, atol=1e-6)


def test_facts_describe_the_map_that_was_stored(
    house: House, explained: tuple[Job, Explanation]
) -> None:
    record, document = explained
    entry = result(document, "grad_cam", CLASSES[0])
    values = array(house, record, entry)
    facts = entry.map
    assert facts is not None
    assert facts.shape == values.shape == (1, 12, 12)
    assert facts.cell == pytest.approx((SIDE / 12, SIDE / 12))
    assert (facts.minimum, facts.maximum) == pytest.approx((values.min(), values.max()))
    assert facts.positive_fraction == pytest.approx((values > 0).mean())
    row, column = np.unravel_index(values[0].argmax(), values[0].shape)
    # a cell of four pixels has its center between its second and its third
    assert facts.peak == pytest.approx((4 * row + 1.5, 4 * column + 1.5))


def test_a_frame_is_explained_as_if_it_were_the_whole_image(house: House) -> None:
    other = np.random.default_rng(4).integers(0, 4096, (SIDE, SIDE)).astype("<u2")
    frames = other.tobytes() + picture(3).astype("<u2").tobytes()
    file = house.image("cine", tags={"NumberOfFrames": 2, "PixelData": frames})
    record, document = house.explain(file, frame=2, artifacts=["dicom_sc"], targets=["top1"])
    logits = [each.logit for each in document.predictions]
    assert logits == pytest.approx(expected_logits(), abs=1e-5)
    (made,) = document.results[0].artifacts
    data = house.backends.store.get(paths.artifact(str(record.result), made.name))
    (reference,) = pydicom.dcmread(io.BytesIO(data)).SourceImageSequence
    assert reference.ReferencedFrameNumber == 2


def colored(folder: Path) -> Path:
    """A model of color images of any kind, whose steps do not repeat gray ones."""
    steps = [{"name": "normalize", "parameters": {"mean": [MEAN], "std": [STD]}}]
    accept = {"modalities": ["CR"], "photometric_interpretations": []}
    changes = {"inputs": [{"accept": accept, "steps": steps}]}
    write_package(folder, name="colored", shape={"channels": 3}, changes=changes)
    rgb = np.random.default_rng(5).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    seen = torch.from_numpy((np.moveaxis(rgb, -1, 0).astype(np.float32) - MEAN) / STD)
    manifest = yaml.safe_load((folder / "model.yaml").read_text())
    for number, test in enumerate(manifest["selftests"], 1):
        (folder / test["input"]).write_bytes(encoded(of_pixels(rgb)))
        manifest["files"][number] = entry_of(folder, test["input"], "selftest", "dicom")
        with torch.no_grad():
            test["logits"] = network(channels=3)(seen[None])[0].tolist()
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest))
    return folder


def for_any(folder: Path) -> Path:
    """A model of gray images, whose package lists images of any kind."""
    write_package(folder, name="careless")
    manifest = yaml.safe_load((folder / "model.yaml").read_text())
    manifest["inputs"][0]["accept"]["photometric_interpretations"] = []
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest))
    return folder


@pytest.mark.parametrize(
    ("written", "takes", "refuses"),
    [(for_any, "MONOCHROME1", "RGB"), (colored, "PALETTE COLOR", "MONOCHROME2")],
)
def test_what_steps_do_not_make_the_models_channels_of_is_refused_at_the_door(
    house: House, written: Callable[[Path], Path], takes: str, refuses: str
) -> None:
    package = register(house.backends.store, written(house.folder / written.__name__))
    served_by(house, {package.package})
    catalog = house.backends.fleet.catalog()
    asked = ExplanationRequest(study="st_1", model=package.name, methods=["saliency"])
    (fits, other) = (study(instance(photometric_interpretation=each)) for each in (takes, refuses))
    assert admit(asked, catalog, fits).request.instance == "in_0001"
    with pytest.raises(NotAcceptedByModel) as refusal:
        admit(asked, catalog, other)
    assert refusal.value.facts["refused"] == {"in_0001": ["photometric_interpretations"]}
    assert takes in refusal.value.facts["accepts"]["photometric_interpretations"]
    file = house.folder / f"{package.name}.dcm"
    shape = (SIDE, SIDE, 3) if refuses == "RGB" else (SIDE, SIDE)
    file.write_bytes(encoded(of_pixels(np.full(shape, 90, np.uint8))))
    record, _ = house.explain(file, package, targets=["top1"])
    assert record.failure is not None
    assert record.failure.code == "not_accepted_by_model"


def test_checks_stand_beside_each_map(explained: tuple[Job, Explanation]) -> None:
    _, document = explained
    for each in document.results:
        outcomes = {check.name: check.outcome for check in each.checks}
        shared_out = each.method == "integrated_gradients"
        assert outcomes["integrity"] == "pass"
        assert outcomes["completeness"] == ("pass" if shared_out else "not_applicable")
        (bank,) = (check for check in each.checks if check.name == "probe_bank")
        assert "p" in bank.values or bank.flags == ("uninformative",)
        for unasked in ("expected_region", "localization", "template"):
            assert outcomes[unasked] == "not_applicable"
        assert "repeat" not in outcomes
        assert all(check.meaning and check.limits for check in each.checks)


def test_parameters_are_told_whole(explained: tuple[Job, Explanation]) -> None:
    _, document = explained
    assert result(document, "integrated_gradients", CLASSES[0]).parameters == {
        "steps": 32,
        "baseline": 0.0,
        "tolerance": None,
        "max_steps": 256,
    }
    covered = result(document, "occlusion", CLASSES[0]).parameters
    assert (covered["stride"], covered["baseline"]) == (8, 0.0)  # as the model and window have it
    cam = result(document, "grad_cam", CLASSES[0])
    assert cam.parameters == {"layer": "blocks.1"}
    assert cam.layer == TargetLayer(name="blocks.1", reason=FIRST)
    assert result(document, "saliency", CLASSES[0]).layer is None


def test_a_layer_that_the_request_names_is_used_and_said_so_in_the_json(house: House) -> None:
    record, document = house.explain(
        house.image("layered"),
        methods=[{"name": "grad_cam", "parameters": {"layer": "blocks.1"}}],
        targets=["top1"],
        artifacts=["json"],
    )
    (each,) = document.results
    assert each.layer == TargetLayer(name="blocks.1", reason="The request names it.")
    (artifact,) = each.artifacts
    data = house.backends.store.get(paths.artifact(str(record.result), artifact.name))
    told = json.loads(data)
    assert told["method"]["layer"] == each.layer.model_dump()


def test_artifacts_are_in_the_store_to_the_byte(
    house: House, explained: tuple[Job, Explanation]
) -> None:
    record, document = explained
    artifacts = [artifact for each in document.results for artifact in each.artifacts]
    assert len(artifacts) == 4 * len(ALL_METHODS) * len(CLASSES)
    for artifact in artifacts:
        data = house.backends.store.get(paths.artifact(str(record.result), artifact.name))
        assert len(data) == artifact.bytes
        assert hashlib.sha256(data).hexdigest() == artifact.sha256


def test_the_document_says_what_ran_and_for_how_long(
    house: House, explained: tuple[Job, Explanation]
) -> None:
    record, document = explained
    assert document.id == record.id
    assert document.attempt == 1
    assert document.model is not None
    assert document.model.package == house.package.package
    weights = (house.folder / "package" / "weights.safetensors").read_bytes()
    assert document.model.weights == hashlib.sha256(weights).hexdigest()
    assert set(document.timings) == {
        "fetch",
        "decode",
        "prepare",
        "attribute",
        "judge",
        "render",
        "deliver",
    }
    assert {"whylight", "torch", "python", "pydicom", "numpy"} <= set(document.versions)
    assert document.versions["torch"] == torch.__version__
    assert document.subject is not None
    assert (document.subject.rows, document.subject.columns) == (SIDE, SIDE)
    assert document.created <= (document.started or 0) <= document.ended


def test_an_inverted_image_gives_the_same_answer(
    house: House, explained: tuple[Job, Explanation]
) -> None:
    _, document = house.explain(house.image("inverted", inverted=True))
    logits = [each.logit for each in document.predictions]
    assert logits == pytest.approx([each.logit for each in explained[1].predictions], abs=1e-5)


def test_a_class_asked_for_twice_is_explained_once(house: House) -> None:
    _, document = house.explain(house.image("twice"), targets=["top1", 0, "nodule"])
    keys = [each.target.key for each in document.results if each.target]
    assert sorted(set(keys)) == sorted(keys)


def test_nothing_above_its_threshold_is_a_success_without_a_map(house: House) -> None:
    record, document = house.explain(
        house.image("healthy"), house.thresholded, methods=["saliency", "grad_cam"]
    )
    assert record.state is State.SUCCEEDED
    assert not record.partial
    assert [each.status for each in document.results] == ["skipped", "skipped"]
    reasons = {each.reason.code for each in document.results if each.reason}
    assert reasons == {"nothing_above_threshold"}
    assert len(document.predictions) == len(CLASSES)


def test_checks_can_be_left_out(house: House) -> None:
    _, document = house.explain(house.image("unchecked"), checks="none", targets=["top1"])
    assert document.results[0].checks == ()
    assert not document.results[0].degenerate


def test_a_method_that_fails_spares_the_others(house: House) -> None:
    record, document = house.explain(
        house.image("partly"),
        methods=["saliency", {"name": "grad_cam", "parameters": {"layer": "nowhere"}}],
        targets=["top1"],
    )
    assert record.state is State.SUCCEEDED
    assert record.partial
    assert document.partial
    assert [each.status for each in document.results] == ["succeeded", "failed"]
    reason = document.results[1].reason
    assert reason is not None
    assert reason.code == "invalid_parameter"


def test_parameters_that_do_not_go_together_are_told_in_words(house: House) -> None:
    record, _ = house.explain(
        house.image("gaps"),
        methods=[{"name": "occlusion", "parameters": {"window": 8, "stride": 9}}],
        targets=["top1"],
    )
    assert record.failure is not None
    assert record.failure.code == "invalid_parameter"
    assert record.failure.facts["reasons"] == [
        "stride must be at most window, so that every place is covered"
    ]


def test_a_window_over_the_whole_image_fails_and_says_how_large_that_is(house: House) -> None:
    record, _ = house.explain(
        house.image("covered"),
        methods=[{"name": "occlusion", "parameters": {"window": SIDE}}],
        targets=["top1"],
    )
    assert record.failure is not None
    assert (record.failure.kind, record.failure.code) == (Kind.CALLER, "invalid_parameter")
    assert record.failure.facts["sizes"] == [SIDE, SIDE]


def test_a_job_fails_when_every_method_does(house: House) -> None:
    record, document = house.explain(
        house.image("wholly"),
        methods=[{"name": "occlusion", "parameters": {"window": 0}}],
        targets=["top1"],
    )
    assert record.state is State.FAILED
    assert document.state == "failed"
    assert record.failure == document.failure
    assert record.failure is not None
    assert (record.failure.kind, record.failure.code) == (Kind.CALLER, "invalid_parameter")


@pytest.mark.parametrize(
    ("request_", "code", "kind"),
    [
        ({"targets": ["fibrosis"]}, "invalid_target", Kind.CALLER),
        ({"targets": [17]}, "invalid_target", Kind.CALLER),
        ({"instance": "in_0009"}, "not_found", Kind.CALLER),
        ({"artifacts": ["oil_painting"]}, "unknown_format", Kind.CALLER),
    ],
)
def test_a_request_that_does_not_fit_fails_by_its_name(
    house: House, request_: dict[str, Any], code: str, kind: Kind
) -> None:
    record, document = house.explain(house.image("unfit"), **request_)
    assert record.state is State.FAILED
    assert record.failure is not None
    assert (record.failure.code, record.failure.kind) == (code, kind)
    assert document.failure == record.failure


def test_an_image_of_another_modality_is_refused(house: House) -> None:
    record, _ = house.explain(house.image("ct", tags={"Modality": "CT"}))
    assert record.failure is not None
    assert record.failure.code == "not_accepted_by_model"


def test_of_several_fitting_images_one_must_be_named(house: House) -> None:
    study = take_in(house.backends.store, house.image("first"), house.image("second"))
    record, _ = house.explain(study, targets=["top1"])
    assert record.failure is not None
    assert record.failure.code == "ambiguous_study"
    named, document = house.explain(study, targets=["top1"], instance="in_0002")
    assert named.state is State.SUCCEEDED
    assert document.subject is not None
    assert document.subject.instance == "in_0002"


def test_a_study_that_was_removed_fails_its_jobs(house: House) -> None:
    study = take_in(house.backends.store, house.image("removed"))
    house.backends.store.purge(paths.study(TENANT, study.id))
    record, _ = house.explain(study)
    assert record.failure is not None
    assert record.failure.code == "gone"


def test_a_stored_image_that_was_changed_is_not_explained(house: House) -> None:
    study = take_in(house.backends.store, house.image("changed"))
    path = study.instances[0].path
    house.backends.store.put(path, house.backends.store.get(path)[:-2] + b"xx")
    record, _ = house.explain(study)
    assert record.failure is not None
    assert record.failure.code == "damaged_object"


def test_a_score_that_is_not_finite_fails_the_job_and_no_other(house: House) -> None:
    tags = {"RescaleSlope": "5e34", "RescaleIntercept": "0"}
    record, document = house.explain(house.image("overflow", tags=tags), targets=["top1"])
    assert record.state is State.FAILED
    assert record.failure is not None
    assert (record.failure.code, record.failure.kind) == ("non_finite_score", Kind.DATA)
    assert document.results == ()
    after, _ = house.explain(house.image("after"), targets=["top1"])
    assert after.state is State.SUCCEEDED


def test_a_flat_image_gives_degenerate_occlusion_marked_so(house: House) -> None:
    flat = np.full((SIDE, SIDE), 2048, np.uint16)  # the baseline itself: hiding it changes nothing
    record, document = house.explain(
        house.image("flat", stored=flat), methods=["occlusion"], targets=["top1"]
    )
    assert record.state is State.SUCCEEDED
    (entry,) = document.results
    assert entry.degenerate
    assert entry.map is not None
    assert entry.map.peak is None
    integrity = {check.name: check for check in entry.checks}["integrity"]
    assert integrity.outcome == "fail"
    assert "degenerate" in integrity.flags


def test_nothing_of_a_job_stays_in_the_scratch_folder(house: House) -> None:
    house.explain(house.image("clean"), targets=["top1"])
    house.explain(house.image("unclean", tags={"Modality": "CT"}))
    assert list(house.scratch.rglob("job-*")) == []
    assert list(house.scratch.rglob("*.dcm")) == [
        path for path in house.scratch.rglob("*.dcm") if "packages" in path.parts
    ]


def test_a_larger_image_is_explained_on_its_own_pixels(house: House, tmp_path: Path) -> None:
    file = write_image(tmp_path / "large.dcm", picture(4, 2 * SIDE, SIDE))
    record, document = house.explain(file, targets=["top1"])
    assert record.state is State.SUCCEEDED
    assert document.results[0].map is not None
    assert document.results[0].map.shape == (1, 2 * SIDE, SIDE)
