"""Four views through the whole line: each map lies on its own image, and they compare."""

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from examples.breasts.dicom import study as views_of
from examples.breasts.drawing import SHAPES, VIEWS, draw
from examples.breasts.train import NETWORK, TESTED, prepared
from service.domain.job import State
from service.domain.trust import STATEMENTS, Flag
from tests.support import dciodvfy
from tests.support.small_model import entry_of
from workers.methods.base import METHODS

PACKAGE = Path(__file__).parents[3] / "models" / "four-view-phantom"
ONE, BOTH = draw(4_242, ["l_mlo"]), draw(4_243, ["r_cc", "r_mlo"])
QUICK = {
    "rise": {"samples": 200},
    "kernel_shap": {"segments": 36, "samples": 100},
    "lime": {"segments": 36, "samples": 100},
    "shapley_sampling": {"segments": 16, "orders": 2},
    "feature_ablation": {"segments": 36},
    "occlusion": {"window": 16, "stride": 8},
    "integrated_gradients": {"steps": 8},
    "smooth_grad": {"samples": 8},
    "var_grad": {"samples": 8},
    "expected_gradients": {"samples": 8},
}
MOST_METHODS = 16
NEAR = 12
"""Source pixels: a cell of the layer is 4 by 4 of a CC view, and sees its neighbors."""


def turned(folder):
    """Write the package for right views turned over, with a layer that mixes the views first."""
    for file in PACKAGE.rglob("*"):
        if file.is_file():
            to = folder / file.relative_to(PACKAGE)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(file.read_bytes())
    manifest = yaml.safe_load((folder / "model.yaml").read_text())
    manifest["id"] = "turned"
    manifest["explain"]["layers"] = [{"name": "head"}, {"name": "peaks"}]
    for view in manifest["inputs"][0]["views"][2:]:
        view["mirrored"] = True
    network = NETWORK.build()
    network.load_state_dict(load_file(PACKAGE / "weights.safetensors"))
    for number, (_, bearing, _) in enumerate(TESTED):
        views = torch.from_numpy(prepared(draw(7_001 + number, bearing)))[None]
        views[:, :, 2:] = views[:, :, 2:].flip(-1)
        with torch.no_grad():
            manifest["selftests"][number]["logits"] = network.eval()(views)[0].tolist()
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest))
    return folder


def onesided(folder):
    """Write the package with a network that looks for the left breast in its own views alone."""
    shutil.copytree(PACKAGE, folder)
    manifest = yaml.safe_load((folder / "model.yaml").read_text())
    manifest["id"] = "onesided"
    network = NETWORK.build()
    network.load_state_dict(load_file(PACKAGE / "weights.safetensors"))
    with torch.no_grad():
        network.head.weight[0, network.head.in_features // 2 :] = 0
    save_file(network.state_dict(), folder / "weights.safetensors")
    manifest["files"][0] = entry_of(folder, "weights.safetensors", "weights", "safetensors")
    for number, (_, bearing, _) in enumerate(TESTED):
        views = torch.from_numpy(prepared(draw(7_001 + number, bearing)))[None]
        with torch.no_grad():
            manifest["selftests"][number]["logits"] = network.eval()(views)[0].tolist()
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest))
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [PACKAGE, turned(folder / "turned"), onesided(folder / "onesided")]


def explain(clinic, drawing, name, *, without=(), model="four-view-phantom", **asked):
    views = {key: each for key, each in views_of(drawing, name).items() if key not in without}
    study = clinic.take_in(views[view] for view in reversed(list(views)))
    return *clinic.explain(model, study, **asked), study


@pytest.fixture(scope="module")
def listed(clinic):
    (entry,) = [m for m in clinic.backends.fleet.catalog().models if m.name == "four-view-phantom"]
    return entry


@pytest.fixture(scope="module")
def explained(clinic, listed):
    """Every method; no request takes so many."""
    methods = [{"name": name, "parameters": QUICK.get(name, {})} for name in listed.methods]
    asked = {"targets": ["left"], "checks": "none"}
    return [
        explain(clinic, ONE, "one", methods=some, **asked)[1]
        for some in (methods[:MOST_METHODS], methods[MOST_METHODS:])
    ]


@pytest.fixture(scope="module")
def drawn(clinic):
    return explain(
        clinic,
        ONE,
        "one",
        targets=["left"],
        methods=["integrated_gradients", "occlusion"],
        artifacts=["json", "dicom_sc", "dicom_seg", "dicom_sr", "dicom_sc_word", "png"],
        checks="full",
    )


def by_view(told, method):
    return {each.view.key: each for each in told.results if each.method == method}


def distance(entry, mask):
    return np.linalg.norm(np.argwhere(mask) - np.array(entry.map.peak), axis=1).min()


def test_the_model_is_right_on_these_studies(explained):
    said = {each.key: each.logit > 0 for each in explained[0].predictions}
    assert said == {"left": True, "right": False}


def test_every_method_points_at_the_mass_in_the_view_that_shows_it(explained, listed):
    entries = [each for told in explained for each in told.results]
    assert not {each.method: each.reason for each in entries if each.status != "succeeded"}
    wrong = {}
    for name in listed.methods:
        entries = by_view(explained[0], name) or by_view(explained[1], name)
        assert list(entries) == list(VIEWS)
        shares = {key: each.view.share for key, each in entries.items()}
        assert sum(shares.values()) == pytest.approx(1)
        near = distance(entries["l_mlo"], ONE.masks["l_mlo"])
        if max(shares, key=shares.get) != "l_mlo" or near > NEAR:
            wrong[name] = (shares, near)
    assert not wrong


def test_a_mass_in_two_views_is_found_in_both_and_at_its_own_place(clinic):
    _, told, _ = explain(clinic, BOTH, "both", targets=["right"], methods=["hires_cam"])
    entries = by_view(told, "hires_cam")
    for view in ("r_cc", "r_mlo"):
        assert distance(entries[view], BOTH.masks[view]) <= NEAR
        assert entries[view].view.share > 0.2
        assert entries[view].trust.grade != "supported"  # no certificate can be made
    assert entries["l_cc"].view.share + entries["l_mlo"].view.share < 0.2


def test_a_view_that_is_taken_turned_over_is_explained_as_it_lies(clinic):
    methods = ["hires_cam", "occlusion"]
    asked = {"targets": ["right"], "artifacts": ["dicom_seg", "png"], "style": "contour"}
    record, told, _ = explain(clinic, BOTH, "turned", model="turned", methods=methods, **asked)
    for method in methods:
        for view in ("r_cc", "r_mlo"):
            entry = by_view(told, method)[view]
            assert distance(entry, BOTH.masks[view]) <= NEAR
            assert distance(entry, BOTH.masks[view][:, ::-1]) > NEAR
            assert entry.map.affine[1][1] < 0
            (bank,) = [each for each in entry.checks if each.name == "probe_bank"]
            assert bank.outcome == "pass"
            marked = pydicom.dcmread(io.BytesIO(clinic.artifact(record, entry, "dicom_seg")))
            region, mask = marked.pixel_array > 0, BOTH.masks[view]
            assert (region & mask).sum() > 5 * (region & mask[:, ::-1]).sum()


def test_a_readers_box_is_held_against_the_map_of_its_view(clinic):
    rows, columns = np.nonzero(ONE.masks["l_mlo"])
    box = [int(each) for each in (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)]
    annotations = [{"of": "left", "view": "l_mlo", "box": box}]
    _, told, _ = explain(
        clinic, ONE, "read", targets=["left"], methods=["layer_cam"], annotations=annotations
    )
    said = {
        view: check.outcome
        for view, entry in by_view(told, "layer_cam").items()
        for check in entry.checks
        if check.name == "localization"
    }
    assert said.pop("l_mlo") == "pass"
    assert set(said.values()) == {"not_applicable"}


def test_each_views_files_are_of_its_own_image_alone(clinic, drawn):
    record, told, study = drawn
    sources = {each.id: each for each in study.instances}
    of_view = {each.key: sources[each.instance] for each in told.subject.views}
    assert {key: each.view_position for key, each in of_view.items()} == {
        "l_cc": "CC",
        "l_mlo": "MLO",
        "r_cc": "CC",
        "r_mlo": "MLO",
    }
    series = set()
    for view, entry in by_view(told, "integrated_gradients").items():
        faint = ["dicom_seg"] if view != "l_mlo" else []  # nothing reaches half of full color
        assert [each.format for each in entry.omitted] == faint
        capture = pydicom.dcmread(io.BytesIO(clinic.artifact(record, entry, "dicom_sc")))
        (source,) = capture.SourceImageSequence
        assert source.ReferencedSOPInstanceUID == of_view[view].sop_instance_uid
        (referenced,) = capture.ReferencedSeriesSequence
        assert referenced.SeriesInstanceUID == of_view[view].series_instance_uid
        assert capture.ImageLaterality == view[0].upper()
        rows, columns = SHAPES[view.split("_")[1]]
        assert capture.Rows >= rows
        assert capture.Columns >= columns
        series.add(capture.SeriesInstanceUID)
        assert all(f"left-{view}" in each.name for each in entry.artifacts)
    assert len(series) == len(VIEWS)


def test_the_objects_are_valid_and_the_report_tells_the_share(clinic, drawn, tmp_path):
    record, told, _ = drawn
    entry = by_view(told, "integrated_gradients")["l_mlo"]
    for format_ in ("dicom_sc", "dicom_sc_word", "dicom_seg", "dicom_sr"):
        file = tmp_path / f"{format_}.dcm"
        file.write_bytes(clinic.artifact(record, entry, format_))
        assert not dciodvfy.complaints(format_, file)
    report = str(pydicom.dcmread(tmp_path / "dicom_sr.dcm"))
    assert "Share of this view in the evidence of all views" in report


def test_the_page_shows_what_this_study_gives(drawn):
    page = (PACKAGE.parents[1] / "docs" / "models" / "inputs.md").read_text()
    _, block = re.findall(r"```json\n(.*?)```", page.split("## Several views")[1], re.DOTALL)
    shown = json.loads(block)
    found = by_view(drawn[1], "integrated_gradients")[shown["key"]].view
    assert (found.label, found.together) == (shown["label"], shown["together"])
    assert found.share == pytest.approx(shown["share"], abs=0.01)
    assert found.full == pytest.approx(shown["full"], rel=0.05)


def test_colors_and_shares_compare_between_views(clinic, drawn):
    record, told, _ = drawn
    for method in ("integrated_gradients", "occlusion"):
        entries = by_view(told, method)
        maps = {
            view: json.loads(clinic.artifact(record, entry, "json"))
            for view, entry in entries.items()
        }
        full = {each["display"]["full_scale"] for each in maps.values() if each["display"]["drawn"]}
        assert len(full) == 1
        assert maps["l_mlo"]["display"]["joint_scale"]
        values = {view: np.array(each["map"]["values"]) for view, each in maps.items()}
        masses = {view: np.abs(each.sum(0)).sum() for view, each in values.items()}
        for view, entry in entries.items():
            assert entry.view.share == pytest.approx(masses[view] / sum(masses.values()), rel=1e-4)
            assert maps[view]["view"]["share"] == entry.view.share
        assert entries["l_mlo"].view.together is (method == "integrated_gradients")


@pytest.mark.parametrize("method", ["saliency", "layer_cam", "occlusion"])
def test_a_view_in_which_nothing_is_found_is_told_so_and_is_not_degenerate(clinic, method):
    choice = {"name": method, "parameters": QUICK.get(method, {})}
    formats = ["json", "dicom_sr", "png"]
    record, told, _ = explain(
        clinic,
        ONE,
        "nothing",
        model="onesided",
        targets=["left"],
        methods=[choice],
        artifacts=formats,
    )
    entries = by_view(told, method)
    for view in ("r_cc", "r_mlo"):
        entry = entries[view]
        assert entry.view.share == pytest.approx(0, abs=1e-6)
        assert (entry.degenerate, entry.map.peak) == (False, None)
        assert Flag.EVIDENCE_ELSEWHERE in entry.trust.flags
        assert STATEMENTS[Flag.EVIDENCE_ELSEWHERE] in entry.trust.statements
        assert entry.trust.grade in {"not_checked", "uninformative"}
        document = json.loads(clinic.artifact(record, entry, "json"))
        assert (document["map"]["peak"], document["display"]["drawn"]) == (None, False)
        report = str(pydicom.dcmread(io.BytesIO(clinic.artifact(record, entry, "dicom_sr"))))
        assert "evidence elsewhere" in report
        assert "Row of the peak" not in report
    assert Flag.EVIDENCE_ELSEWHERE not in entries["l_mlo"].trust.flags
    assert entries["l_mlo"].map.peak is not None


def test_what_adds_up_adds_up_over_all_views(drawn):
    for entry in by_view(drawn[1], "integrated_gradients").values():
        (check,) = [each for each in entry.checks if each.name == "completeness"]
        assert check.values["relative_residual"] < 0.05
    total = sum(each.map.sum for each in by_view(drawn[1], "integrated_gradients").values())
    (check,) = [each for each in entry.checks if each.name == "completeness"]
    assert total == pytest.approx(check.values["sum"], rel=1e-4)


def test_each_view_is_held_against_places_of_its_own(drawn):
    entries = by_view(drawn[1], "occlusion")
    drops = {}
    for view, entry in entries.items():
        (bank,) = [each for each in entry.checks if each.name == "probe_bank"]
        (again,) = [each for each in entry.checks if each.name == "repeat"]
        assert again.outcome == "pass"
        drops[view] = bank.values.get("drops")
    (bank,) = [each for each in entries["l_mlo"].checks if each.name == "probe_bank"]
    assert bank.outcome == "pass"
    assert drops["l_mlo"] is not None
    largest = {view: max(np.abs(each)) for view, each in drops.items() if each is not None}
    assert max(largest, key=largest.get) == "l_mlo"


def test_some_views_alone_are_explained_by_the_same_numbers(clinic, drawn):
    targets = [
        {"kind": "view", "of": "left", "laterality": "L"},
        {"kind": "view", "of": "right", "view": "r_cc"},
    ]
    _, told, _ = explain(
        clinic, ONE, "one", targets=targets, methods=["integrated_gradients"], checks="none"
    )
    assert [each.target.key for each in told.results] == ["left-l_cc", "left-l_mlo", "right-r_cc"]
    for entry in told.results[:2]:
        whole = by_view(drawn[1], "integrated_gradients")[entry.view.key]
        assert entry.view.share == pytest.approx(whole.view.share, rel=1e-5)
        assert entry.map.sum == pytest.approx(whole.map.sum, rel=1e-4)
        assert entry.target.score == whole.target.score
        assert entry.target.again.view == entry.view.key


def test_the_catalog_tells_of_views_and_of_what_would_mix_them(clinic, listed):
    assert [each.key for each in listed.views] == list(VIEWS)
    assert listed.target_kinds == ("class", "contrast", "view")
    assert listed.shape == (1, 4, 64, 64)
    alone = METHODS["occlusion"]().estimate((1, 64, 64), 1).rows
    assert listed.method_rows["occlusion"]["forward"] == 4 * alone
    assert listed.method_rows["saliency"]["gradient"] == 1
    assert {"ablation_cam", "grad_cam", "rise", "kernel_shap", "saliency", "deep_lift"} <= set(
        listed.methods
    )
    (mixed,) = [each for each in clinic.backends.fleet.catalog().models if each.name == "turned"]
    assert [each.name for each in mixed.layers] == ["peaks"]
    assert "does not keep the views apart" in mixed.refused_layers["head"]


def test_a_view_that_was_lost_after_admission_fails_the_job_by_name(clinic):
    record, told, _ = explain(clinic, ONE, "lost", without=["r_cc"], targets=["left"])
    assert record.state is State.FAILED
    assert (told.failure.code, told.failure.facts["missing"]) == ("missing_view", ["r_cc"])
