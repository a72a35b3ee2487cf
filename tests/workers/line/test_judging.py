"""How far real jobs' maps may be believed, on a real worker."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from typing_extensions import override

from service import paths
from service.admission import check_against_catalog
from service.domain.explanation import Check, Result
from service.domain.job import State
from service.domain.request import ExplanationRequest
from service.domain.trust import STATEMENTS, Flag, Grade
from service.errors.requests import MethodUncertified
from service.packages import PackageRecord
from tests.support.exported import onnx_of, write_onnx_package
from tests.support.hospital import document, published, register, take_in
from tests.support.phantom_dicom import encoded
from tests.support.small_model import (
    CLASSES,
    MEAN,
    SIDE,
    STD,
    model_input,
    network,
    picture,
    write_package,
)
from tests.workers.line.conftest import House, leased, served_by
from workers import line
from workers.access import Access
from workers.binding import Seen
from workers.line import Line
from workers.parcels import Attributed, Judged
from workers.runtimes.torch import TorchRuntime
from workers.stages.judge import judge

METHODS = ["saliency", "grad_cam", "occlusion"]
ONNX = Path(__file__).parents[3] / "models" / "chest-phantom-onnx"


def checks(result: Result) -> dict[str, Check]:
    return {check.name: check for check in result.checks}


def artifact(house: House, record: Any, name: str) -> dict[str, Any]:
    data = house.backends.store.get(paths.artifact(str(record.result), name))
    document: dict[str, Any] = json.loads(data)
    return document


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every batch that models were given from now on."""
    rows: list[int] = []
    whole = TorchRuntime.serve

    def counted(self: TorchRuntime, group: Any, segments: Any) -> Any:
        rows.append(sum(segment.count for segment in segments))
        return whole(self, group, segments)

    monkeypatch.setattr(TorchRuntime, "serve", counted)
    return rows


UNCERTIFIED = (Grade.WEAK, Grade.NOT_SUPPORTED, Grade.UNINFORMATIVE)
"""Grades of maps that were checked, where no method has a certificate."""


def test_every_map_has_a_grade_and_its_words(house: House) -> None:
    record, found = house.explain(house.image("graded"), methods=METHODS)
    assert record.state is State.SUCCEEDED
    for each in found.results:
        assert each.trust is not None
        assert each.trust.grade in UNCERTIFIED
        assert Flag.UNCERTIFIED in each.trust.flags
        assert each.trust.statements
        assert each.trust.binding is not None
        assert checks(each)["probe_bank"].passes == 25
    hides = {
        each.method: Flag.SAME_KIND_OF_EVIDENCE in _flags(each)
        for each in found.results
        if checks(each)["probe_bank"].outcome != "not_applicable"
    }
    assert hides == {"saliency": False, "grad_cam": False, "occlusion": True}


def _flags(result: Result) -> tuple[Flag, ...]:
    return () if result.trust is None else result.trust.flags


@pytest.mark.parametrize(
    ("methods", "targets"), [(["grad_cam"], ["nodule"]), (METHODS, list(CLASSES))]
)
def test_checks_cost_one_bank_whatever_is_explained(
    house: House, served: list[int], methods: list[str], targets: list[str]
) -> None:
    spent = {}
    for level in ("none", "standard"):
        served.clear()
        house.explain(house.image("cost"), methods=methods, targets=targets, checks=level)
        spent[level] = sum(served)
    assert spent["standard"] - spent["none"] == 25  # and one more where a region is declared


def test_the_json_repeats_the_report_and_holds_the_places(house: House) -> None:
    record, found = house.explain(house.image("told"), methods=["grad_cam"], targets=["nodule"])
    told = artifact(house, record, "grad_cam.nodule.json")
    (result,) = found.results
    assert result.trust is not None
    report = {name: told["trust"][name] for name in result.trust.model_dump(mode="json")}
    assert report == result.trust.model_dump(mode="json")
    probes = told["trust"]["probes"]
    assert sum(probes["lattices"]) == len(probes["cells"]) == len(probes["drops"]) == 25
    assert probes["extent"] == [SIDE, SIDE]
    assert told["parity"] == {"outcome": "not_given", "pairs": [], "elsewhere": []}


def test_a_job_that_wants_no_checks_is_not_checked(house: House) -> None:
    _, found = house.explain(house.image("none"), checks="none", targets=["top1"])
    (result,) = found.results
    assert result.checks == ()
    assert result.trust is not None
    assert result.trust.grade is Grade.NOT_CHECKED
    assert result.trust.binding is not None


def test_full_checks_run_every_method_again(house: House) -> None:
    _, found = house.explain(
        house.image("full"), checks="full", methods=METHODS, targets=["nodule", "effusion"]
    )
    said = [(each.method, checks(each)["repeat"]) for each in found.results]
    assert [(method, check.outcome) for method, check in said] == [
        (method, "pass") for method, _ in said
    ], [check.values for _, check in said]


def test_an_annotation_is_held_against_the_map(house: House) -> None:
    inside = {"of": "nodule", "box": [0, 0, SIDE, SIDE]}
    _, found = house.explain(
        house.image("annotated"),
        methods=["grad_cam"],
        targets=["nodule", "effusion"],
        annotations=[inside],
    )
    said = {each.target.key: checks(each)["localization"] for each in found.results if each.target}
    assert said["nodule"].outcome == "pass"
    assert said["nodule"].values["energy_share"] == pytest.approx(1.0)
    assert said["effusion"].outcome == "not_applicable"


def test_what_an_ultrasound_image_declares_is_its_expected_region(house: House) -> None:
    region = pydicom.Dataset()
    region.RegionSpatialFormat = 1
    region.RegionLocationMinX0 = region.RegionLocationMinY0 = 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = SIDE // 2 - 1, SIDE - 1
    file = house.image("echo", tags={"SequenceOfUltrasoundRegions": [region]})
    _, found = house.explain(file, methods=["saliency"], targets=["top1"])
    assert "fall" in checks(found.results[0])["expected_region"].values


def test_a_flat_image_gives_an_invalid_map_and_not_a_supported_one(house: House) -> None:
    flat = np.full((SIDE, SIDE), 2048, np.uint16)
    _, found = house.explain(
        house.image("even", stored=flat), methods=["occlusion", "grad_cam"], targets=["top1"]
    )
    grades = [each.trust and each.trust.grade for each in found.results]
    assert len(grades) == 2
    assert set(grades) <= {Grade.INVALID, Grade.UNINFORMATIVE}


def test_an_image_too_small_for_places_is_not_checked(house: House) -> None:
    small = np.random.default_rng(0).integers(0, 4096, (24, 24)).astype(np.uint16)
    _, found = house.explain(house.image("tiny", stored=small), targets=["top1"])
    (result,) = found.results
    assert checks(result)["probe_bank"].flags == ("too_small",)
    assert result.trust is not None
    assert result.trust.grade is Grade.NOT_CHECKED


@pytest.mark.parametrize("shape", [(20, 20), (31, 200)])
def test_an_enlarged_image_has_no_more_places_than_it_was_sent_with(
    house: House, odd: dict[str, Any], shape: tuple[int, int]
) -> None:
    small = picture(rows=shape[0], columns=shape[1])
    file = house.image("enlarged", stored=small)
    _, found = house.explain(file, odd["enlarging"], methods=METHODS, targets=["top1"])
    for each in found.results:
        assert each.trust is not None
        assert each.trust.grade is Grade.NOT_CHECKED
        assert checks(each)["probe_bank"].flags == ("too_small",)
        assert checks(each)["target_specific"].outcome == "not_applicable"


def test_an_image_of_just_enough_pixels_is_checked_enlarged(
    house: House, odd: dict[str, Any]
) -> None:
    file = house.image("enough", stored=picture(rows=32, columns=33))
    _, found = house.explain(file, odd["enlarging"], targets=["top1"])
    (result,) = found.results
    assert "p" in checks(result)["probe_bank"].values


@pytest.mark.parametrize("black", ["left", "top"])
def test_an_image_with_black_padding_is_judged_like_any(house: House, black: str) -> None:
    stored = np.random.default_rng(1).integers(1000, 3000, (SIDE, SIDE)).astype(np.uint16)
    stored[:, : SIDE // 3] = 0
    file = house.image(black, stored=stored if black == "left" else stored.T.copy())
    record, found = house.explain(file, methods=METHODS, targets=["top1"])
    assert record.state is State.SUCCEEDED
    banks = [checks(each)["probe_bank"] for each in found.results]
    assert len(banks) == len(METHODS)
    assert all("p" in each.values or each.flags == ("uninformative",) for each in banks)


def test_the_same_image_explained_twice_is_no_duplicate(house: House) -> None:
    for _ in range(2):
        _, found = house.explain(house.image("one"), methods=["grad_cam"], targets=["nodule"])
        assert Flag.DUPLICATE not in _flags(found.results[0])


def test_a_map_that_was_made_of_another_image_before_is_flagged(
    house: House, own: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    def met(attributed: Attributed, access: Access, seen: Seen) -> Judged:
        for each in attributed.attributions:
            assert each.binding is not None
            other = each.binding.model_copy(update={"input": "0" * 64})
            seen.is_duplicate(other, degenerate=False)
        return judge(attributed, access, seen)

    monkeypatch.setattr(line, "judge", met)
    held = leased(house)
    replace(own, seen=Seen()).lead(held)
    record = house.backends.queue.get(held.lease.job.tenant, held.lease.job.id)
    (result,) = document(house.backends, record).results
    assert Flag.DUPLICATE in _flags(result)


def test_a_job_cancelled_while_it_is_judged_ends_there(
    house: House, own: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancelled(attributed: Attributed, access: Access, seen: Seen) -> Judged:
        access.held.cancel()
        return judge(attributed, access, seen)

    monkeypatch.setattr(line, "judge", cancelled)
    held = leased(house)
    own.lead(held)
    job = held.lease.job
    assert house.backends.queue.get(job.tenant, job.id).state is State.CANCELLED
    assert not [path for path in published(house.backends, job) if not path.endswith("job.json")]


def test_a_bank_that_comes_too_late_leaves_the_maps_unchecked(
    house: House, own: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(attributed: Attributed, access: Access, seen: Seen) -> Judged:
        return judge(attributed, replace(access, deadline=time.monotonic() - 1), seen)

    monkeypatch.setattr(line, "judge", late)
    held = leased(house)
    own.lead(held)
    record = house.backends.queue.get(held.lease.job.tenant, held.lease.job.id)
    assert record.state is State.SUCCEEDED
    (result,) = document(house.backends, record).results
    assert checks(result)["probe_bank"].flags == ("no_bank",)
    assert result.trust is not None
    assert result.trust.grade is Grade.NOT_CHECKED


@pytest.fixture(scope="module")
def interpreted(house: House) -> PackageRecord:
    """The demo model as a file of ONNX, with records of its own, served by the worker."""
    record = register(house.backends.store, ONNX)
    served_by(house, {record.package})
    return record


def test_maps_of_an_interpreted_graph_have_certificates_measured_on_it(
    house: House, interpreted: PackageRecord
) -> None:
    study = take_in(house.backends.store, ONNX / "selftest" / "ordinary.dcm")
    record, found = house.explain(
        study, interpreted, methods=["grad_cam", "eigen_cam"], targets=["nodule"]
    )
    assert record.state is State.SUCCEEDED
    for each in found.results:
        assert each.trust is not None
        assert each.trust.certificate is not None
        assert each.trust.certificate.surrogate
        assert "all_random" in each.trust.certificate.similarities
        assert each.trust.calibration is not None
        assert "similarity" in checks(each)["template"].values
        told = artifact(house, record, f"{each.method}.nodule.json")
        assert told["trust"]["certificate"]["surrogate"] is True
        assert told["display"]["own_scale"] is False
    grad_cam, eigen_cam = found.results
    assert grad_cam.trust is not None
    assert grad_cam.trust.grade is Grade.SUPPORTED
    assert Flag.WIDE_MARGINS not in _flags(grad_cam)
    assert Flag.WEAK_FOR_THIS_MODEL not in _flags(grad_cam)
    assert Flag.CERTIFICATE_FAILED in _flags(eigen_cam)
    assert Flag.WEAK_FOR_THIS_MODEL in _flags(eigen_cam)


def test_guided_backprop_is_refused_on_an_interpreted_graph_unless_it_is_allowed(
    house: House, interpreted: PackageRecord
) -> None:
    asked = ExplanationRequest(
        study="st_1", model=interpreted.name, targets=["nodule"], methods=["guided_backprop"]
    )
    catalog = house.backends.fleet.catalog()
    with pytest.raises(MethodUncertified) as caught:
        check_against_catalog(asked, catalog)
    assert "grad_cam" in caught.value.facts["methods"]
    allowed = asked.model_copy(update={"allow_uncertified": True})
    assert check_against_catalog(allowed, catalog).name == interpreted.name
    study = take_in(house.backends.store, ONNX / "selftest" / "ordinary.dcm")
    _, found = house.explain(
        study, interpreted, methods=["guided_backprop"], targets=["nodule"], allow_uncertified=True
    )
    (result,) = found.results
    assert result.trust is not None
    assert result.trust.grade in (Grade.NOT_SUPPORTED, Grade.UNINFORMATIVE)
    assert result.trust.statements[0] == STATEMENTS[Flag.CERTIFICATE_FAILED]


def constant(model: Any) -> None:
    """Let every score be its bias, whatever the image."""
    model.head.weight.data.zero_()


def one_class(folder: Any) -> Any:
    return write_package(
        folder,
        name="single",
        shape={"classes": 1},
        changes={"outputs": [{"classes": [{"key": "nodule", "label": "N", "threshold": 1e-6}]}]},
    )


def enlarging(folder: Any) -> Any:
    """Write a package whose model takes images of every size, brought to its own."""
    steps = [
        {"name": "invert_monochrome1"},
        {"name": "normalize", "parameters": {"mean": [MEAN], "std": [STD]}},
        {"name": "resize", "parameters": {"size": [SIDE, SIDE]}},
    ]
    inputs = [{"accept": {"modalities": ["CR", "DX"]}, "steps": steps}]
    return write_package(folder, name="enlarging", changes={"inputs": inputs})


@pytest.fixture(scope="module")
def odd(house: House, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Packages of models that answer oddly, served by the house's worker."""
    folder = tmp_path_factory.mktemp("odd")
    records = {
        "constant": register(
            house.backends.store,
            write_package(folder / "constant", name="constant", break_weights=constant),
        ),
        "one_class": register(house.backends.store, one_class(folder / "single")),
        "enlarging": register(house.backends.store, enlarging(folder / "enlarging")),
    }
    served_by(house, {each.package for each in records.values()})
    return records


def test_a_model_that_nothing_moves_gives_nothing_to_believe(
    house: House, odd: dict[str, Any]
) -> None:
    _, found = house.explain(
        house.image("constant"), odd["constant"], methods=METHODS, targets=["top1"]
    )
    grades = [each.trust and each.trust.grade for each in found.results]
    assert len(grades) == len(METHODS)
    assert set(grades) <= {Grade.INVALID, Grade.UNINFORMATIVE}


def test_a_model_of_one_class_is_checked_without_other_classes(
    house: House, odd: dict[str, Any]
) -> None:
    record, found = house.explain(house.image("single"), odd["one_class"], targets=["top1"])
    assert record.state is State.SUCCEEDED
    (result,) = found.results
    assert checks(result)["target_specific"].outcome == "not_applicable"
    assert "p" in checks(result)["probe_bank"].values


class Stepped(torch.nn.Module):
    """The small network with its scores in steps, as one has them that was quantized."""

    def __init__(self, step: float) -> None:
        super().__init__()
        self.network, self.step = network(), step

    @override
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.round(self.network(image) / self.step) * self.step


def stepped(folder: Path, name: str, step: float) -> Path:
    """Write the package of a stepped network."""
    model = Stepped(step).eval()
    content = onnx_of(model, torch.zeros(1, SIDE, SIDE))
    with torch.no_grad():
        logits = model(model_input(picture())[None])[0].tolist()
    tests = [
        {"title": each, "input": f"{each}.dcm", "logits": list(logits), "tolerance": 1e-4}
        for each in ("plain", "inverted")
    ]
    return write_onnx_package(folder / name, {"model.onnx": content}, id=name, selftests=tests)


@pytest.fixture(scope="module")
def quantized(house: House, tmp_path_factory: pytest.TempPathFactory) -> dict[str, PackageRecord]:
    """Packages of two stepped networks; hiding a place moves a score by up to 0.001."""
    folder = tmp_path_factory.mktemp("quantized")
    records = {
        name: register(house.backends.store, stepped(folder, name, step))
        for name, step in {"few_steps": 3e-4, "one_step": 1.0}.items()
    }
    served_by(house, {each.package for each in records.values()})
    return records


SCORING = ["occlusion", "feature_ablation"]


def test_a_score_that_moves_in_few_steps_is_told_and_supports_nothing(
    house: House, quantized: dict[str, PackageRecord]
) -> None:
    _, found = house.explain(
        house.image("few"), quantized["few_steps"], methods=SCORING, targets=["nodule"]
    )
    assert len(found.results) == len(SCORING)
    for each in found.results:
        drops = checks(each)["probe_bank"].values["drops"]
        assert isinstance(drops, list)
        assert 2 <= len({round(float(str(drop)) / 3e-4) for drop in drops}) < 6
        assert Flag.FEW_LEVELS in _flags(each)
        assert each.trust is not None
        assert STATEMENTS[Flag.FEW_LEVELS] in each.trust.statements
        assert each.trust.grade in UNCERTIFIED


def test_a_score_whose_steps_are_wider_than_any_fall_says_nothing(
    house: House, quantized: dict[str, PackageRecord]
) -> None:
    _, found = house.explain(
        house.image("one"), quantized["one_step"], methods=[*SCORING, "saliency"], targets=["top1"]
    )
    assert len(found.results) == len(SCORING) + 1
    for each in found.results:
        assert each.trust is not None
        assert each.trust.grade in (Grade.INVALID, Grade.UNINFORMATIVE)


def test_an_image_inside_of_black_margins_is_flagged(
    house: House, interpreted: PackageRecord
) -> None:
    ds = pydicom.dcmread(ONNX / "selftest" / "ordinary.dcm")
    wide = np.pad(ds.pixel_array, ds.Rows // 8)
    ds.Rows, ds.Columns = wide.shape
    ds.SOPInstanceUID, ds.PixelData = "2.25.4711", wide.tobytes()
    file = house.folder / "bordered.dcm"
    file.write_bytes(encoded(ds))
    _, found = house.explain(file, interpreted, methods=["saliency"], targets=["nodule"])
    (result,) = found.results
    assert Flag.WIDE_MARGINS in _flags(result)
    values = checks(result)["margins"].values
    assert values["margins"][:2] == pytest.approx([0.1, 0.1], abs=0.01)
    assert values["widest_known"][:2] == [0, 0]
