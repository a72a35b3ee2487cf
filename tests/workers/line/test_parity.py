"""Is this the AI's answer? From real pixels to the job's document."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from service import paths
from service.domain.explanation import Explanation
from service.domain.job import State
from service.domain.parity import Parity
from service.domain.trust import STATEMENTS, Flag
from service.errors.base import Kind
from service.manifests import read_manifest
from service.packages import PackageRecord
from tests.support.hospital import published, register
from tests.support.journey import STUDIES
from tests.support.small_model import CLASSES, model_input, network, picture
from tests.workers.line.conftest import House
from workers.architectures.base import ARCHITECTURES
from workers.pixels.decode import decode_file
from workers.scheduler import Scheduler
from workers.stages.prepare import prepare_files

DEMO = Path(__file__).parents[3] / "models" / "chest-phantom"
EFFUSION = STUDIES / "effusion.dcm"
"""A portrait plate: other resizes show."""

METHODS = ["saliency", "integrated_gradients", "occlusion"]


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Rows of every plan that is handed to the scheduler, by the lease's token."""
    rows: dict[str, list[int]] = {}
    submit = Scheduler.submit

    def noted(self: Scheduler, token: str, runtime: Any, planned: Any, **options: Any) -> Any:
        rows.setdefault(token, []).extend(each.rows for each in planned)
        return submit(self, token, runtime, planned, **options)

    monkeypatch.setattr(Scheduler, "submit", noted)
    return rows


def says(key: str) -> tuple[float, float]:
    """Return the network's own logit and probability of a class."""
    with torch.no_grad():
        logit = network()(model_input(picture(3))[None])[0, CLASSES.index(key)]
    return float(logit), float(logit.sigmoid())


def test_a_mismatch_fails_the_job_before_anything_is_attributed(
    house: House, plans: dict[str, list[int]]
) -> None:
    logit, _ = says("effusion")
    observed = [
        {"of": "nodule", "positive": True},
        {"of": "effusion", "score": logit + 1, "scale": "logit", "tolerance": 0.5},
        {"of": 2, "positive": False},
    ]
    record, document = house.explain(house.image("other"), methods=METHODS, observed=observed)
    assert record.state is State.FAILED
    assert record.failure is not None
    assert record.failure == document.failure
    assert (record.failure.code, record.failure.kind) == ("parity_mismatch", Kind.DATA)
    mismatched: Any = record.failure.facts["mismatched"]
    first, second = mismatched
    assert first == {
        "key": "effusion",
        "scale": "logit",
        "observed": logit + 1,
        "found": pytest.approx(logit, abs=1e-5),
        "tolerance": 0.5,
        "found_positive": True,
    }
    assert second["key"] == "fracture"
    assert (second["observed_positive"], second["found_positive"]) == (False, True)
    assert document.parity is not None
    assert [each.outcome for each in document.parity.pairs] == [
        Parity.MATCHED,
        Parity.MISMATCHED,
        Parity.MISMATCHED,
    ]
    assert document.results == ()
    assert published(house.backends, record) == [paths.document(str(record.result))]
    token = str(record.result).rsplit("/", 1)[-1]
    assert plans[token] == [1]  # the clean image, and nothing after it


def test_a_mismatch_that_is_allowed_is_told_and_explained(
    house: House, plans: dict[str, list[int]]
) -> None:
    observed = [{"of": "nodule", "positive": False}]
    record, document = house.explain(
        house.image("allowed"),
        methods=METHODS,
        targets=["nodule"],
        observed=observed,
        allow_mismatch=True,
    )
    assert record.state is State.SUCCEEDED
    assert [each.status for each in document.results] == ["succeeded"] * len(METHODS)
    assert document.parity is not None
    assert document.parity.outcome is Parity.MISMATCHED
    token = str(record.result).rsplit("/", 1)[-1]
    assert len(plans[token]) > len(METHODS)


def of_maps(house: House, name: str, *observed: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Have two classes explained all the same; return each map's parity, flags and where else."""
    record, document = house.explain(
        house.image(name),
        methods=["saliency"],
        targets=["nodule", "effusion"],
        observed=observed,
        allow_mismatch=True,
        artifacts=["json"],
    )
    assert record.state is State.SUCCEEDED
    told = {}
    for each in document.results:
        assert each.target is not None
        assert each.trust is not None
        (artifact,) = each.artifacts
        data = house.backends.store.get(paths.artifact(str(record.result), artifact.name))
        parity = json.loads(data)["parity"]
        assert {pair["key"] for pair in parity["pairs"]} <= {each.target.key}
        flags = [flag.value for flag in each.trust.flags if flag.value.startswith("parity")]
        assert all(STATEMENTS[Flag(flag)] in each.trust.statements for flag in flags)
        told[each.target.key] = (parity["outcome"], *flags, *parity["elsewhere"])
    return told


def test_what_was_observed_of_one_class_is_not_said_of_another(house: House) -> None:
    right = {"of": "effusion", "score": says("effusion")[0], "scale": "logit"}
    assert of_maps(house, "only", right) == {"nodule": ("not_given",), "effusion": ("matched",)}


def test_a_mismatch_is_said_of_its_class_and_told_of_as_anothers_beside_the_rest(
    house: House,
) -> None:
    right = {"of": "nodule", "score": says("nodule")[0], "scale": "logit"}
    wrong = {"of": "effusion", "score": says("effusion")[0] + 5, "scale": "logit"}
    assert of_maps(house, "mixed", right, wrong) == {
        "nodule": ("matched", "parity_mismatch_elsewhere", "effusion"),
        "effusion": ("mismatched", "parity_mismatch"),
    }


@pytest.mark.parametrize("scale", ["logit", "probability"])
def test_what_the_network_says_itself_matches(house: House, scale: str) -> None:
    observed = [
        {"of": key, "score": says(key)[scale == "probability"], "scale": scale, "tolerance": 1e-4}
        for key in CLASSES
    ]
    record, document = house.explain(house.image("same"), targets=["top1"], observed=observed)
    assert record.state is State.SUCCEEDED
    assert document.parity is not None
    assert document.parity.outcome is Parity.MATCHED


def test_a_normal_result_is_matched_and_has_no_map(house: House) -> None:
    observed = [{"of": key, "positive": False} for key in CLASSES]
    record, document = house.explain(house.image("normal"), house.thresholded, observed=observed)
    assert record.state is State.SUCCEEDED
    assert document.parity is not None
    assert document.parity.outcome is Parity.MATCHED
    (entry,) = document.results
    assert (entry.status, entry.artifacts) == ("skipped", ())
    assert entry.reason is not None
    assert entry.reason.code == "nothing_above_threshold"


def test_a_class_that_the_model_lacks_fails_the_job_by_its_name(house: House) -> None:
    record, document = house.explain(
        house.image("unknown"), observed=[{"of": "mass", "positive": True}]
    )
    assert record.failure is not None
    assert record.failure.code == "invalid_target"
    assert document.parity is None


def test_a_finding_below_its_threshold_says_so_beside_its_map(house: House) -> None:
    record, document = house.explain(
        house.image("below"), house.thresholded, targets=["nodule"], artifacts=["json"]
    )
    (entry,) = document.results
    assert entry.status == "succeeded"
    assert entry.target is not None
    assert (entry.target.threshold, entry.target.above_threshold) == (0.999999, False)
    (artifact,) = entry.artifacts
    data = house.backends.store.get(paths.artifact(str(record.result), artifact.name))
    assert json.loads(data)["target"]["above_threshold"] is False


def variant(folder: Path, name: str, **resize: Any) -> Path:
    """Write the demo package with another resize, and self-tests that hold for it."""
    shutil.copytree(DEMO, folder)
    content = yaml.safe_load((folder / "model.yaml").read_text())
    content["id"] = name
    (step,) = [each for each in content["inputs"][0]["steps"] if each["name"] == "resize"]
    step["parameters"] |= resize
    (folder / "model.yaml").write_text(yaml.safe_dump(content))
    for test in content["selftests"]:
        test["logits"] = logits_of(folder, folder / test["input"])
    (folder / "model.yaml").write_text(yaml.safe_dump(content))
    return folder


def logits_of(package: Path, file: Path) -> list[float]:
    """Ask the package's network directly."""
    manifest = read_manifest((package / "model.yaml").read_bytes())
    assert manifest.architecture is not None
    shape = ARCHITECTURES[manifest.architecture.name]
    network = shape.model_validate(manifest.architecture.parameters).build()
    network.load_state_dict(load_file(package / "weights.safetensors"))
    scratch = package.with_name(f"{package.name}.scratch")
    scratch.mkdir(exist_ok=True)
    files = decode_file(file, scratch)
    tensor, _ = prepare_files(files.pixels, files.padding, files.facts, manifest.inputs[0].steps)
    with torch.no_grad():
        logits: list[float] = network.eval()(torch.from_numpy(tensor)[None])[0].tolist()
    return logits


def on_the_shelf(house: House, *folders: Path) -> list[PackageRecord]:
    """Register packages and wait until the worker serves them."""
    records = [register(house.backends.store, folder) for folder in folders]
    pause = threading.Event()
    for _ in range(600):
        served = {each for w in house.backends.fleet.workers() for each in w.packages}
        if {each.package for each in records} <= served:
            return records
        pause.wait(0.1)
    raise AssertionError([each.failure for each in house.backends.fleet.catalog().models])


@pytest.fixture(scope="module")
def demo(house: House) -> dict[str, PackageRecord]:
    """The demo model as it is, and served with other resizes."""
    folder = house.folder
    folders = [
        DEMO,
        variant(folder / "letterbox", "letterbox", aspect="letterbox"),
        variant(folder / "aliased", "aliased", antialias=False),
    ]
    return {each.name: each for each in on_the_shelf(house, *folders)}


@pytest.fixture(scope="module")
def issued(house: House, demo: dict[str, PackageRecord]) -> Explanation:
    """What the original says of the image."""
    record, document = house.explain(EFFUSION, demo["chest-phantom"], targets=["effusion"])
    assert record.state is State.SUCCEEDED
    assert document.parity is not None
    assert document.parity.outcome is Parity.NOT_GIVEN
    return document


def said(issued: Explanation, *kinds: str) -> list[dict[str, Any]]:
    """Return what the original said, as a caller observes it."""
    return [
        {"of": each.key}
        | ({"score": each.probability} if "probability" in kinds else {})
        | ({"score": each.logit, "scale": "logit", "tolerance": 0.1} if "logit" in kinds else {})
        | ({"positive": each.above_threshold} if "decision" in kinds else {})
        for each in issued.predictions
    ]


@pytest.mark.parametrize("kind", ["probability", "logit", "decision"])
def test_the_model_that_issued_the_result_matches_it(
    house: House, demo: dict[str, PackageRecord], issued: Explanation, kind: str
) -> None:
    record, document = house.explain(
        EFFUSION, demo["chest-phantom"], targets=["effusion"], observed=said(issued, kind)
    )
    assert record.state is State.SUCCEEDED
    assert document.parity is not None
    assert document.parity.outcome is Parity.MATCHED
    assert [each.key for each in document.parity.pairs] == [each.key for each in issued.predictions]


@pytest.mark.parametrize(
    ("served", "kind", "differing"),
    [
        ("letterbox", "probability", ["cardiomegaly"]),
        ("letterbox", "decision", ["cardiomegaly"]),
        (
            "aliased",
            "logit",
            ["nodule", "consolidation", "effusion", "cardiomegaly", "pneumothorax"],
        ),
    ],
)
def test_the_same_model_served_with_another_resize_does_not(
    house: House,
    demo: dict[str, PackageRecord],
    issued: Explanation,
    *,
    served: str,
    kind: str,
    differing: list[str],
) -> None:
    record, document = house.explain(
        EFFUSION, demo[served], targets=["effusion"], observed=said(issued, kind)
    )
    assert record.state is State.FAILED
    assert record.failure is not None
    assert (record.failure.code, record.failure.kind) == ("parity_mismatch", Kind.DATA)
    assert document.parity is not None
    assert document.parity.outcome is Parity.MISMATCHED
    assert document.results == ()
    pairs = document.parity.pairs
    assert [each.key for each in pairs if each.outcome is Parity.MISMATCHED] == differing


def test_a_saturated_probability_hides_what_a_logit_shows(
    house: House, demo: dict[str, PackageRecord], issued: Explanation
) -> None:
    """Why the page on the API says to send logits where there are any."""
    observed = said(issued, "probability")
    record, document = house.explain(
        EFFUSION, demo["aliased"], targets=["effusion"], observed=observed
    )
    assert record.state is State.SUCCEEDED
    assert document.parity is not None
    assert document.parity.outcome is Parity.MATCHED
