"""``whylight reproduce`` against a gateway of a few lines that keeps what it was asked."""

import hashlib
import io
import json
import shutil
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from service import documents
from service.command import reproduce
from service.command.difference import distance
from service.command.failure import CommandFailure
from service.command.resend import Resent
from service.domain.artifact import Artifact
from service.domain.canonical import digest_of
from service.domain.explanation import (
    Check,
    Explanation,
    InstanceRef,
    MapFacts,
    ModelRef,
    Provenance,
    Result,
)
from service.domain.request import ExplanationRequest
from service.domain.resolved import FrozenRegion, ResolvedTarget
from service.domain.trust import Binding, Grade, TrustReport, source_digest

THEN, NOW = "ex_0000000000000000000000000a", "ex_0000000000000000000000000b"
IMAGE = b"a DICOM object"
SOURCE = hashlib.sha256(IMAGE).hexdigest()
PACKAGE, WEIGHTS, REQUEST = "a" * 64, "b" * 64, "c" * 64
MAP = np.linspace(-1, 3, 64, dtype=np.float32).reshape(1, 8, 8)  # its range is 4
KEYS = {0: "nodule", 3: "effusion"}
PARAMETERS = {"saliency": {}, "smooth_grad": {"samples": 8, "seed": 5}}
FACTS = MapFacts(
    shape=MAP.shape,
    signed=True,
    affine=((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    cell=(1.0, 1.0),
    minimum=-1.0,
    maximum=3.0,
    sum=64.0,
    positive_fraction=0.7,
    peak=None,
)


def spelled(values, format_):
    """A map as an artifact of a format."""
    if format_ == "json":
        return json.dumps({"map": {"values": values.tolist()}}).encode()
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


@dataclass
class Explained:
    """A document and its files by name."""

    document: bytes
    files: dict[str, bytes] = field(default_factory=dict)


def explained(
    job, maps, formats=("npy",), binds=True, *, version=1, checks=(), region=None, **changes
):
    """Make a finished explanation whose maps are `maps` by method and class index."""
    files, results = {}, []
    for (method, index), values in maps.items():
        target = ResolvedTarget(
            key=KEYS[index],
            label="x",
            index=index,
            asked_as="above_threshold",
            score=1.0,
            probability=None,
            threshold=None,
            above_threshold=None,
            region=region,
        )
        named = {
            f"{method}.{KEYS[index]}.{each}": (each, spelled(values, each)) for each in formats
        }
        artifacts = tuple(
            Artifact(
                name=name,
                format=format_,
                method=method,
                target=target.key,
                media_type="x/y",
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
            )
            for name, (format_, data) in named.items()
        )
        files |= {name: data for name, (_, data) in named.items()}
        binding = Binding.of(
            map=hashlib.sha256(values.tobytes()).hexdigest(),
            input="d" * 64,
            source=source_digest([SOURCE], target.beside),
            weights=WEIGHTS,
            precision="bfloat16",
            request=REQUEST,
            job=job,
            attempt=1,
        )
        trust = TrustReport(grade=Grade.WEAK, statements=(), binding=binding if binds else None)
        results.append(
            Result(
                method=method,
                version=version,
                parameters=PARAMETERS[method],
                target=target,
                status="succeeded",
                map=FACTS,
                checks=checks,
                trust=trust,
                artifacts=artifacts,
            )
        )
    ran = Provenance(
        package=PACKAGE,
        weights=WEIGHTS,
        request=REQUEST,
        instances=(InstanceRef(id="in_0007", sha256=SOURCE, sop_class_uid="1.2"),),
        device="cpu",
        hardware="AVX2",
        precision="bfloat16",
        tf32=False,
        threads=1,
    )
    explanation = Explanation(
        id=job,
        state="succeeded",
        request=ExplanationRequest(
            study="st_then",
            model="chest",
            methods=["saliency"],
            grid="source",
            checks="full",
            precision="bfloat16",
        ),
        model=ModelRef(
            name="chest",
            version="1.2.0",
            title="Chest",
            package=PACKAGE,
            weights=WEIGHTS,
            runtime="torch",
        ),
        results=tuple(results),
        attempt=1,
        created=1,
        ended=2,
        provenance=ran,
        versions={"torch": "2.0"},
    ).model_copy(update=changes)
    return Explained(documents.written(explanation, job), files)


MAPS = {(m, i): MAP + i for m in PARAMETERS for i in KEYS}


class Gateway:
    """What the command asks of a gateway, and what it is told."""

    def __init__(self):
        self.models = [{"name": "chest", "version": "1.2.0", "package": PACKAGE}]
        self.studies = {"st_then"}
        self.kept: dict[str, Explained] = {NOW: explained(NOW, MAPS)}
        self.asked, self.sent, self.state = [], [], "succeeded"
        self.refusal: CommandFailure | None = None

    def __call__(self, _url, _key):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def json(self, verb, path, **options):
        match verb, path:
            case "GET", "/v1/models":
                return {"models": self.models}
            case "GET", "/v1/methods":
                versions = {"saliency": 1, "smooth_grad": 4, "rise": 2}
                return {"methods": [{"name": k, "version": v} for k, v in versions.items()]}
            case "POST", "/v1/studies":
                with zipfile.ZipFile(io.BytesIO(options["content"])) as archive:
                    self.sent += [archive.read(each) for each in archive.namelist()]
                parts = range(1, len(self.sent) + 1)
                kept = [{"id": f"in_000{k}", "part": k, "series": "se_0001"} for k in parts]
                return {"id": "st_now", "instances": kept}
            case "POST", "/v1/explanations":
                ExplanationRequest.model_validate(options["json"])
                self.asked.append(options["json"])
                if self.refusal is not None:
                    raise self.refusal
                failure = {"detail": "The decoder failed."}
                return {"id": NOW, "state": self.state, "failure": failure}
        raise AssertionError((verb, path))

    def find(self, path):
        kind, name, *rest = path.removeprefix("/v1/").split("/")
        if kind == "studies":
            return b"{}" if name in self.studies else None
        kept = self.kept.get(name)
        if kept is None:
            return None
        return kept.document if rest[1] == "job.json" else kept.files.get(rest[1])

    def ask(self, _verb, path):
        return SimpleNamespace(content=self.find(path))


@pytest.fixture
def gateway(monkeypatch):
    gateway = Gateway()
    monkeypatch.setattr(reproduce, "Client", gateway)
    monkeypatch.setenv("WHYLIGHT_API_KEY", "wl_live_x_y")
    return gateway


@pytest.fixture
def keep(tmp_path):
    """Lay an explanation into a folder; returns the path of its document."""

    def lay(made, files=True):
        (tmp_path / "job.json").write_bytes(made.document)
        for name, data in made.files.items() if files else ():
            (tmp_path / name).write_bytes(data)
        return tmp_path / "job.json"

    return lay


@pytest.fixture
def file(keep):
    return keep(explained(THEN, MAPS))


def nudged(by):
    """The maps with one number of one of them moved."""
    maps = {which: values.copy() for which, values in MAPS.items()}
    maps["saliency", 3][0, 4, 4] += by
    return maps


@pytest.mark.usefixtures("gateway")
def test_the_same_maps_are_reproduced(whylight, file):
    status, out, _ = whylight("reproduce", file)
    assert status == 0
    assert out.count("| yes") == 4
    assert "4 of 4 maps are within 2e-06 of their range" in out


def test_everything_is_asked_for_as_it_was_resolved_then(whylight, gateway, file):
    whylight("reproduce", file)
    (asked,) = gateway.asked
    assert asked["model"] == "chest@1.2.0"
    assert (asked["study"], asked["instance"]) == ("st_then", "in_0007")
    assert {each["name"]: each["parameters"] for each in asked["methods"]} == PARAMETERS
    assert [each["of"] for each in asked["targets"]] == [0, 3]
    assert (asked["priority"], asked["grid"], asked["checks"]) == ("low", "source", "full")
    assert asked["artifacts"] == ["json", "npy"]
    assert asked["precision"] == "bfloat16"


@pytest.mark.parametrize(("by", "status"), [(4e-6, 0), (4e-5, 1)])
def test_a_map_counts_as_the_same_up_to_the_engines_tolerance(whylight, gateway, file, by, status):
    """The range is 4, so 2e-6 of it are 8e-6; float32 at 3 knows steps of 2.4e-7."""
    gateway.kept[NOW] = explained(NOW, nudged(by))
    found, out, _ = whylight("reproduce", file)
    assert found == status
    assert out.count("| no ") == 1
    assert f"{4 - status} of 4" in out


def region(segmentation):
    """What a target over a segment of a segmentation was resolved to."""
    return FrozenRegion(
        kind="segment", cells=1, digest="e" * 64, box=(0, 0, 1, 1), segmentation=segmentation
    )


@pytest.mark.parametrize(("now", "status"), [("a" * 64, 0), ("b" * 64, 1)])
def test_maps_of_another_segmentation_are_never_compared(whylight, gateway, keep, now, status):
    file = keep(explained(THEN, MAPS, region=region("a" * 64)))
    gateway.kept[NOW] = explained(NOW, MAPS, region=region(now))
    found, _, err = whylight("reproduce", file)
    assert found == status
    assert ("another image or segmentation" in err) is bool(status)


def test_an_edited_document_is_refused_before_anything_is_asked(whylight, gateway, file):
    document = json.loads(file.read_bytes())
    document["results"][1]["parameters"]["steps"] = 9
    file.write_text(json.dumps(document))
    status, _, err = whylight("reproduce", file)
    assert status == 1
    assert "seal" in err
    assert gateway.asked == []


@pytest.mark.usefixtures("gateway")
def test_a_document_that_is_not_there_is_told(whylight, tmp_path):
    status, _, err = whylight("reproduce", tmp_path / "none.json")
    assert (status, "cannot be read" in err) == (1, True)


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ([], "does not have chest@1.2.0"),
        ([{"name": "chest", "version": "1.3.0", "package": PACKAGE}], "does not have chest@1.2.0"),
        ([{"name": "chest", "version": "1.2.0", "package": "f" * 64}], "another package"),
    ],
)
def test_another_model_is_never_taken_for_the_one_explained(whylight, gateway, file, models, said):
    gateway.models = models
    status, _, err = whylight("reproduce", file)
    assert status == 1
    assert said in err
    assert gateway.asked == []


def test_a_study_that_is_gone_must_be_named(whylight, gateway, file):
    gateway.studies.clear()
    status, _, err = whylight("reproduce", file)
    assert status == 1
    assert "--study" in err


def test_the_very_image_can_be_sent_again(whylight, gateway, file, tmp_path):
    gateway.studies.clear()
    (tmp_path / "image.dcm").write_bytes(IMAGE)
    status, _, _ = whylight("reproduce", file, "--study", tmp_path / "image.dcm")
    assert status == 0
    assert gateway.sent == [IMAGE]
    assert (gateway.asked[0]["study"], gateway.asked[0]["instance"]) == ("st_now", "in_0001")


SEG = b"a segmentation"
SEG_TARGET = {
    "kind": "segmentation",
    "of": "nodule",
    "region": {"kind": "segment", "instance": "in_0009", "segment": 1},
}


def of_a_segment(job, name):
    """An explanation of a segment of the segmentation that has this name in its study."""
    target = SEG_TARGET | {"region": SEG_TARGET["region"] | {"instance": name}}
    one = explained(job, {("saliency", 0): MAP}, region=region(hashlib.sha256(SEG).hexdigest()))
    document = documents.opened(one.document)
    (result,) = document.results
    told = ResolvedTarget.model_validate(
        result.target.model_dump()
        | {"key": f"nodule-segment-{name}-1", "kind": "segmentation", "again": target}
    )
    results = (result.model_copy(update={"target": told}),)
    return Explained(documents.written(document.model_copy(update={"results": results}), job))


@pytest.mark.parametrize("packed", [True, False], ids=["archive", "folder"])
def test_an_image_and_its_segmentation_can_be_sent_again(whylight, gateway, keep, tmp_path, packed):
    """Both have other names now, as of a study of which an object is not needed."""
    gateway.studies.clear()
    gateway.kept[NOW] = of_a_segment(NOW, "in_0002")
    file, place = keep(of_a_segment(THEN, "in_0009")), tmp_path / "study"
    place.mkdir()
    for name, data in {"a.dcm": SEG, "b/c": b"another", "d.dcm": IMAGE}.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(data)
    if packed:
        place = Path(shutil.make_archive(str(place), "zip", place))
    status, out, err = whylight("reproduce", file, "--study", place)
    assert (status, err) == (0, "")
    assert "1 of 1 maps are within" in out
    assert gateway.sent == [IMAGE, SEG]
    (asked,) = gateway.asked
    assert (asked["study"], asked["instance"]) == ("st_now", "in_0001")
    assert asked["targets"][0]["region"]["instance"] == "in_0002"


def test_of_several_objects_one_file_names_the_way_out(whylight, gateway, keep, tmp_path):
    file = keep(of_a_segment(THEN, "in_0009"))
    (tmp_path / "image.dcm").write_bytes(IMAGE)
    status, _, err = whylight("reproduce", file, "--study", tmp_path / "image.dcm")
    assert (status, gateway.sent, gateway.asked) == (1, [], [])
    assert "1 of the 2 objects" in err
    assert "zip archive or a folder" in err


def test_names_of_objects_alone_are_named_anew():
    then = {
        "study": "st_then",
        "views": {"mlo": "in_0001"},
        "instances": ["in_0002", "in_0001"],
        "label": "in_0001",
        "targets": [{"of": "in_0001", "instance": "in_0001"}],
        "annotations": [{"of": "a", "view": "in_0002"}],
    }
    now = Resent("st_now", {"in_0001": "in_0002", "in_0002": "in_0001"}).request(then)
    assert now == {
        "study": "st_now",
        "views": {"mlo": "in_0002"},
        "instances": ["in_0001", "in_0002"],
        "label": "in_0001",
        "targets": [{"of": "in_0001", "instance": "in_0002"}],
        "annotations": [{"of": "a", "view": "in_0001"}],
    }


def test_another_image_is_not_sent(whylight, gateway, file, tmp_path):
    (tmp_path / "image.dcm").write_bytes(IMAGE + b".")
    status, _, err = whylight("reproduce", file, "--study", tmp_path / "image.dcm")
    assert (status, gateway.sent, gateway.asked) == (1, [], [])
    assert "not the image" in err


@pytest.mark.parametrize("formats", [("json",), ("npy",), ("json", "npy")])
@pytest.mark.parametrize("beside", [True, False])
def test_the_original_values_come_from_files_or_from_the_service(
    whylight, gateway, keep, formats, beside
):
    made = explained(THEN, nudged(4e-5), formats)
    file = keep(made, files=beside)
    if not beside:
        gateway.kept[THEN] = made
    status, out, _ = whylight("reproduce", file)
    assert status == 1
    assert "4e-05 " in out
    assert "1e-05 " in out


def test_where_the_values_are_lost_the_digests_decide(whylight, gateway, keep):
    status, out, _ = whylight("reproduce", keep(explained(THEN, MAPS), files=False))
    assert status == 0
    assert out.count("| -  ") == 8
    gateway.kept[NOW] = explained(NOW, nudged(4e-6))
    status, out, _ = whylight("reproduce", keep(explained(THEN, MAPS), files=False))
    assert status == 1


def test_values_without_digests_are_compared_all_the_same(whylight, gateway, keep):
    assert whylight("reproduce", keep(explained(THEN, MAPS, binds=False)))[0] == 0
    gateway.kept[NOW] = explained(NOW, nudged(4e-5))
    assert whylight("reproduce", keep(explained(THEN, MAPS, binds=False)))[0] == 1


@pytest.mark.usefixtures("gateway")
def test_a_file_beside_the_document_that_was_changed_is_refused(whylight, file):
    (file.parent / "saliency.nodule.npy").write_bytes(spelled(MAP * 2, "npy"))
    status, _, err = whylight("reproduce", file)
    assert status == 1
    assert "saliency.nodule.npy is not the file" in err


def test_a_map_that_could_not_be_made_again_is_not_reproduced(whylight, gateway, file):
    maps = {which: values for which, values in MAPS.items() if which != ("smooth_grad", 0)}
    gateway.kept[NOW] = explained(NOW, maps)
    status, out, _ = whylight("reproduce", file)
    assert (status, "3 of 4" in out) == (1, True)


def test_a_job_that_fails_is_told_with_its_reason(whylight, gateway, file):
    gateway.state = "failed"
    status, _, err = whylight("reproduce", file)
    assert (status, "The decoder failed." in err) == (1, True)


def test_an_explanation_without_maps_has_nothing_to_compute(whylight, gateway, keep):
    status, _, err = whylight("reproduce", keep(explained(THEN, {})))
    assert (status, "no map" in err, gateway.asked) == (1, True, [])


def test_maps_of_another_image_are_never_compared(whylight, gateway, file):
    ran = Provenance.model_validate(json.loads(gateway.kept[NOW].document)["provenance"])
    (image,) = ran.instances
    other = ran.model_copy(
        update={"instances": (image, image.model_copy(update={"sha256": "0" * 64}))}
    )
    gateway.kept[NOW] = explained(NOW, MAPS, binds=False, provenance=other)
    status, _, err = whylight("reproduce", file)
    assert (status, "another image" in err) == (1, True)


def test_what_has_changed_since_then_is_told(whylight, gateway, file):
    gateway.kept[NOW] = explained(NOW, MAPS, versions={"torch": "3.0"})
    _, out, _ = whylight("reproduce", file)
    assert "torch: 2.0 then, 3.0 now" in out
    assert "hardware" not in out


def check(name, version):
    return Check(name=name, version=version, outcome="pass", meaning="It is so.")


def test_methods_and_checks_of_another_version_are_told_before_the_differences(
    whylight, gateway, keep
):
    """`repeat` is made of some jobs only: where it is not on both sides, nothing has changed."""
    then = (check("integrity", 1), check("completeness", 1), check("repeat", 1))
    now = (check("integrity", 1), check("completeness", 2))
    file = keep(explained(THEN, MAPS, checks=then))
    gateway.kept[NOW] = explained(NOW, nudged(4e-5), version=3, checks=now)
    status, out, _ = whylight("reproduce", file)
    assert status == 1
    told = [line for line in out.splitlines() if "has changed" in line]
    assert [line.split(";")[0] for line in told] == [
        "The method saliency has changed: version 1 then, 3 now",
        "The method smooth_grad has changed: version 1 then, 3 now",
        "The check completeness has changed: version 1 then, 2 now",
    ]
    assert out.index(told[-1]) < out.index("largest difference")


def test_a_refusal_is_told_with_the_methods_that_have_changed(whylight, gateway, file):
    gateway.refusal = CommandFailure("A parameter is wrong.", "  /methods/1/samples: Must be odd.")
    status, _, err = whylight("reproduce", file)
    assert (status, len(gateway.asked)) == (1, 1)
    assert "Must be odd." in err
    assert "The method smooth_grad has changed: version 1 then, 4 now" in err
    assert "saliency" not in err


@pytest.mark.usefixtures("gateway")
def test_the_same_versions_are_not_told(whylight, file):
    assert "has changed" not in whylight("reproduce", file)[1]


@pytest.mark.parametrize("lacking", ["results.1.version", "results.0.checks.0.version"])
def test_a_document_that_lacks_a_version_is_refused_by_its_name(whylight, gateway, keep, lacking):
    """Whoever seals an edited document anew is told what is missing of it."""
    file = keep(explained(THEN, MAPS, checks=(check("integrity", 1),)))
    document = json.loads(file.read_bytes())
    place = document
    *outer, last = lacking.split(".")
    for step in outer:
        place = place[int(step) if step.isdigit() else step]
    del place[last]
    del document["seal"]
    file.write_text(json.dumps(document | {"seal": digest_of(document)}))
    status, _, err = whylight("reproduce", file)
    assert (status, gateway.asked) == (1, [])
    assert f"lacks {lacking}." in err


def test_the_distance_of_maps():
    shifted = MAP.copy()
    shifted[0, 0, 0] -= 0.5
    assert distance(MAP, MAP) == (0.0, 0.0)
    assert distance(MAP, shifted) == (0.5, 0.125)
    assert distance(MAP, MAP[:, :4]) == (np.inf, np.inf)
    holed = np.where(MAP > 2, np.nan, MAP).astype(np.float32)
    assert distance(holed, holed.copy()) == (0.0, 0.0)
    assert distance(MAP, holed) == (np.inf, np.inf)
    flat = np.zeros((1, 2, 2), np.float32)
    assert distance(flat, flat) == (0.0, 0.0)
    assert distance(flat, flat + 1) == (1.0, np.inf)
