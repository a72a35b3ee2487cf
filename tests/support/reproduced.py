"""Explanations as documents, and a gateway of a few lines that keeps what it was asked."""

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

from service import documents
from service.command.failure import CommandFailure
from service.domain.artifact import Artifact
from service.domain.explanation import (
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


def region(segmentation):
    """What a target over a segment of a segmentation was resolved to."""
    return FrozenRegion(
        kind="segment", cells=1, digest="e" * 64, box=(0, 0, 1, 1), segmentation=segmentation
    )


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
