"""What a record depends on, and what is answered before and after it is measured."""

from dataclasses import replace

import pytest
import yaml

from service.manifests import read_manifest
from tests.support.small_model import LAYER, write_package
from workers.catalog import certified, ready_model
from workers.measures.probe_bank import ProbeBank
from workers.methods.base import ModelFacts
from workers.methods.grad_cam import GradCam
from workers.methods.integrated_gradients import IntegratedGradients
from workers.methods.saliency import Saliency
from workers.passes import Ability
from workers.precisions import Precisions
from workers.records import MOST_WAITING, Records, Subject
from workers.runtimes.base import LayerFacts, Probe

FACTS = ModelFacts(layers=(LAYER,))
PROBE = Probe(
    abilities=frozenset(Ability) - {Ability.RECTIFIER_RULES},
    layers=(LayerFacts(LAYER, (16, 12, 12), (2.0, 2.0)),),
    refused={},
    outputs=(3,),
    mixes_rows=False,
    row_seconds={"forward": 0.01},
    row_bytes={"forward": 1000},
)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Fields of a manifest without a calibration set."""
    folder = write_package(tmp_path_factory.mktemp("package"), side=24)
    return yaml.safe_load((folder / "model.yaml").read_text())


@pytest.fixture(scope="module")
def fields(bare):
    return {**bare, **with_cases(bare)}


def subject(fields, *, dtype="float32", surrogate=False, **changes):
    manifest = read_manifest(yaml.safe_dump({**fields, **changes}).encode())
    return Subject(manifest, dtype, surrogate=surrogate)


def with_cases(fields, digest="c" * 64, synthetic=True):
    file = {"role": "calibration", "format": "safetensors", "path": "c.safetensors"}
    return {
        "files": [*fields["files"], {**file, "sha256": digest, "bytes": 10}],
        "calibration": {"cases": "c.safetensors", "synthetic": synthetic, "title": "Cases."},
    }


def of_weights(fields, digest):
    first, *others = fields["files"]
    return {"files": [{**first, "sha256": digest}, *others]}


def of_class(fields, **changes):
    first, *others = fields["outputs"][0]["classes"]
    return {"outputs": [{"classes": [{**first, **changes}, *others]}]}


def test_every_part_on_which_numbers_depend_makes_another_record(bare, fields):
    steps = fields["inputs"][0]["steps"]
    network = {"name": "residual_cnn", "parameters": {"dilations": [1, 2]}}
    others = [
        subject(bare),
        subject(fields, **of_weights(fields, "d" * 64)),
        subject(fields, architecture=network),
        subject(fields, inputs=[{**fields["inputs"][0], "steps": steps[:1]}]),
        subject(fields, dtype="float64"),
        subject(fields, surrogate=True),
        subject(fields, task="classification-multiclass"),
        subject(fields, **of_class(fields, key="mass")),
        subject(fields, **of_class(fields, threshold=0.7)),
        subject(fields, **with_cases(bare, "d" * 64)),
        subject(fields, **with_cases(bare, synthetic=False)),
    ]
    plain = subject(fields)
    ids = [each.identify(Saliency()) for each in (plain, *others)]
    ids += [plain.identify(GradCam(layer=name)) for name in (LAYER, "stem")]
    assert len(set(ids)) == len(ids)


def test_what_does_not_count_makes_no_other_record(fields):
    plain = subject(fields)
    renamed = subject(
        fields, title="Another title", version="2.0.0", **of_class(fields, label="Another label")
    )
    assert renamed.identify(Saliency()) == plain.identify(Saliency())
    settled = IntegratedGradients().settled(FACTS)
    assert plain.identify(settled) == plain.identify(IntegratedGradients(baseline=0.0))


def test_a_new_version_of_a_method_is_measured_anew(fields, monkeypatch):
    before = subject(fields).identify(Saliency())
    monkeypatch.setattr(Saliency, "version", 2)
    assert subject(fields).identify(Saliency()) != before


def test_another_probe_bank_is_measured_anew(fields, monkeypatch):
    before = subject(fields).identify(Saliency())
    monkeypatch.setattr(ProbeBank, "version", 2)
    assert subject(fields).identify(Saliency()) != before


def test_the_first_use_of_parameters_asks_for_them_once(fields):
    records = Records(subject(fields))
    assert records.next() is None
    assert records.record(Saliency()) == "pending"
    assert records.record(IntegratedGradients(steps=8)) == "pending"
    assert records.record(Saliency()) == "pending"
    assert records.next() == Saliency()
    kept = records.uncertifiable(Saliency(), "too_costly")
    records.keep(kept)
    assert records.record(Saliency()) == kept
    assert records.next() == IntegratedGradients(steps=8)


def test_only_so_many_may_wait(fields):
    records = Records(subject(fields))
    asked = [records.record(IntegratedGradients(steps=n + 1)) for n in range(MOST_WAITING + 1)]
    assert asked == ["pending"] * MOST_WAITING + [None]
    records.keep(records.uncertifiable(IntegratedGradients(steps=1), "too_costly"))
    assert records.record(IntegratedGradients(steps=MOST_WAITING + 1)) == "pending"


def test_a_model_without_cases_says_so_at_once(bare):
    record = Records(subject(bare)).record(Saliency())
    assert record.certificate.outcome == "not_certifiable"
    assert record.certificate.reason == "no_calibration_set"


def test_records_of_the_package_are_taken_where_they_fit(fields):
    ours = subject(fields)
    fitting = Records(ours).uncertifiable(Saliency(), "too_costly")
    strange = fitting.model_copy(update={"id": ours.identify(GradCam(layer=LAYER))})
    records = Records(ours, (fitting, strange))
    assert records.record(Saliency()) == fitting
    assert records.record(GradCam(layer=LAYER)) == "pending"
    other = Records(subject(fields, dtype="float64"), (fitting,))
    assert other.record(Saliency()) == "pending"


def test_the_catalog_lists_what_was_asked_for_defaults_first(fields):
    manifest = subject(fields).manifest
    entry = ready_model(manifest, "e" * 64, PROBE, (1, 24, 24), FACTS)
    records = Records(subject(fields))
    records.record(IntegratedGradients(steps=8, baseline=0.0))
    records.record(Saliency())
    records.keep(records.uncertifiable(Saliency(), "no_usable_maps"))
    precisions = Precisions(records.subject, "cpu")
    first, second = certified(entry, records, precisions, FACTS).certificates
    assert (first.method, first.default, first.outcome) == ("saliency", True, "not_certifiable")
    assert first.reason == "no_usable_maps"
    assert (second.method, second.default, second.outcome) == (
        "integrated_gradients",
        False,
        "pending",
    )
    assert second.parameters["steps"] == 8
    assert second.id == records.subject.identify(IntegratedGradients(steps=8, baseline=0.0))


def test_each_change_is_counted(fields):
    records = Records(subject(fields))
    seen = [records.changes]
    for change in (
        lambda: records.record(Saliency()),
        lambda: records.keep(records.uncertifiable(Saliency(), "too_costly")),
        lambda: records.record(GradCam(layer=LAYER)),
        lambda: records.keep(records.uncertifiable(GradCam(layer=LAYER), "too_costly")),
    ):
        change()
        seen.append(records.changes)
    assert len(set(seen)) == len(seen)
    records.record(Saliency())
    assert records.changes == seen[-1]


@pytest.mark.parametrize("task", ["regression", "segmentation"])
def test_what_has_no_class_to_be_exchanged_is_never_measured_and_says_so(fields, task):
    known = subject(fields)
    other = replace(known, manifest=known.manifest.model_copy(update={"task": task}))
    records = Records(other, (Records(other).uncertifiable(Saliency(), "too_costly"),))
    assert records.at_hand(Saliency())
    record = records.record(Saliency())
    assert record.certificate.outcome == "not_certifiable"
    assert record.certificate.reason == "target_is_no_class"
    assert records.next() is None
