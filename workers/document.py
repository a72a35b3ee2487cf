"""The document of a job: what it was, what came of it, on which software."""

import platform
import time
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Literal

import numpy as np
import torch

from service.domain.artifact import Artifact
from service.domain.explanation import (
    Explanation,
    InstanceRef,
    MapFacts,
    ModelRef,
    Omission,
    Provenance,
    RemoteModel,
    Result,
    Subject,
    VolumeFacts,
)
from service.domain.manifest import Manifest
from service.domain.request import ExplanationRequest
from service.domain.view import ViewFact
from service.domain.volume import Volume
from service.errors.base import Failure
from service.errors.studies import NothingToExplain
from workers.binding import request_digest
from workers.device import hardware, rounds_to_tf32
from workers.held import Held
from workers.model import Model
from workers.parcels import Attribution, Fetched, Prepared, Rendered, Verdict
from workers.restriction import peak, seen_share

Ending = Literal["succeeded", "failed", "cancelled"]

SOFTWARE: Final = ("whylight", "torch", "onnxruntime", "numpy", "pydicom")


def finished(held: Held, rendered: Rendered, model: Model) -> Explanation:
    """Return the document of a job whose line came to its end."""
    judged = rendered.judged
    attributed = judged.attributed
    prepared = attributed.prepared
    results = tuple(
        _result(
            attribution,
            verdict,
            _facts(attribution, verdict, prepared),
            tuple(file.artifact for file in files),
            omitted,
        )
        for attribution, verdict, files, omitted in zip(
            attributed.attributions,
            judged.verdicts,
            rendered.files,
            rendered.omitted,
            strict=True,
        )
    )
    failure = _shared_failure(results)
    ending: Ending = "succeeded" if failure is None else "failed"
    return unfinished(held, ending, failure).model_copy(
        update={
            "model": model.ref,
            "subject": _subject(prepared),
            "provenance": _provenance(prepared.decoded.fetched, model),
            "predictions": attributed.predictions,
            "results": results,
            "partial": failure is None
            and any(each.status == "failed" or each.partial for each in results),
            "warnings": _warnings(prepared),
        }
    )


def unfinished(held: Held, ending: Ending, failure: Failure | None) -> Explanation:
    """Return the document of a job that ended before it had results."""
    job = held.lease.job
    return Explanation(
        id=job.id,
        state=ending,
        request=ExplanationRequest.model_validate_json(job.request),
        parity=held.parity,
        failure=failure,
        attempt=job.attempt,
        created=job.created,
        started=job.started,
        ended=int(time.time() * 1000),
        timings={stage: round(seconds, 4) for stage, seconds in held.timings.items()},
        versions=dict(versions()),
    )


def model_ref(manifest: Manifest, package: str, remote: RemoteModel | None = None) -> ModelRef:
    """Return the model: its package, and the weights that ran or who says that they did."""
    return ModelRef(
        name=manifest.id,
        version=manifest.version,
        title=manifest.title,
        package=package,
        weights=manifest.weights,
        runtime=manifest.runtime,
        remote=remote,
    )


@cache
def versions() -> Mapping[str, str]:
    """Return the versions of the software that computes; parts not installed are left out."""
    found = {"python": platform.python_version()}
    for name in SOFTWARE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _shared_failure(results: Sequence[Result]) -> Failure | None:
    """Return the first failure when every result failed: only then the job fails."""
    if results and all(each.status == "failed" for each in results):
        return results[0].reason
    return None


def _result(
    attribution: Attribution,
    verdict: Verdict,
    facts: MapFacts | None,
    artifacts: tuple[Artifact, ...],
    omitted: tuple[Omission, ...],
) -> Result:
    """Return one method's entry for one target."""
    return Result(
        method=attribution.method,
        version=attribution.version,
        parameters=attribution.parameters,
        layer=attribution.layer,
        target=attribution.target,
        status=_status(attribution),
        reason=attribution.failure,
        executed_on=attribution.executed_on,
        degenerate=verdict.degenerate,
        partial=attribution.partial,
        map=facts,
        variables=attribution.variables,
        instances=attribution.instances,
        view=attribution.view,
        extras=dict(attribution.extras),
        checks=verdict.checks,
        trust=verdict.trust,
        artifacts=artifacts,
        omitted=omitted,
    )


def _status(attribution: Attribution) -> Literal["succeeded", "failed", "skipped"]:
    """Tell how an attribution ended; nothing above its threshold is no failure."""
    if attribution.failure is None:
        return "succeeded"
    return "skipped" if attribution.failure.code == NothingToExplain.code else "failed"


def _facts(attribution: Attribution, verdict: Verdict, prepared: Prepared) -> MapFacts | None:
    """Describe a map without its values; values that are not finite count as zero."""
    values, grid, target = attribution.values, attribution.grid, attribution.target
    if values is None or grid is None or target is None:
        return None
    finite = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    restriction = attribution.restriction
    regions = restriction.regions if restriction else ()
    extent = prepared.of(target.view).decoded.facts.shape
    found = peak(finite.sum(axis=0), grid, extent, regions)
    return MapFacts(
        shape=values.shape,
        signed=attribution.signed,
        affine=tuple(tuple(float(v) for v in row) for row in grid.affine),
        cell=grid.cell,
        minimum=float(finite.min()),
        maximum=float(finite.max()),
        sum=float(finite.sum()),
        positive_fraction=float((finite > 0).mean()),
        peak=None if verdict.degenerate or verdict.blank or found is None else found[0],
        padding_share=attribution.padding_share,
        seen_share=seen_share(grid, extent),
        restriction=restriction,
    )


def _provenance(fetched: Fetched, model: Model) -> Provenance:
    """Tell what ran on what."""
    device = model.replicas.device
    return Provenance(
        package=model.ref.package,
        weights=model.ref.weights,
        remote=model.ref.remote,
        request=request_digest(fetched.lease.job),
        instances=tuple(
            InstanceRef(id=each.id, sha256=each.sha256, sop_class_uid=each.sop_class_uid)
            for each in fetched.instances
        ),
        device=device.type,
        hardware=hardware(device),
        precision=fetched.request.precision,
        tf32=rounds_to_tf32(device),
        threads=torch.get_num_threads(),
        fixed_rows=model.replicas.fixed_rows,
    )


def _subject(prepared: Prepared) -> Subject:
    """Name the image by our own identifiers."""
    fetched, facts = prepared.decoded.fetched, prepared.decoded.facts
    return Subject(
        study=fetched.request.study,
        instance=fetched.instance.id,
        series=fetched.request.series if fetched.series else None,
        volume=_volume(prepared.decoded.volume),
        left_out=fetched.left_out,
        rows=facts.rows,
        columns=facts.columns,
        modality=facts.modality,
        photometric_interpretation=facts.photometric_interpretation,
        variables=prepared.variables,
        views=tuple(
            ViewFact(
                key=view.key,
                label=view.label,
                instance=each.decoded.fetched.instance.id,
                rows=each.decoded.facts.rows,
                columns=each.decoded.facts.columns,
            )
            for each in prepared.views
            if (view := each.decoded.fetched.view) is not None
        ),
    )


def _warnings(prepared: Prepared) -> tuple[str, ...]:
    """Return the codes of all that was repaired or is doubtful in an image, or in any view."""
    images = prepared.views or (prepared,)
    return tuple(dict.fromkeys(code for each in images for code in each.decoded.facts.warnings))


def _volume(volume: Volume | None) -> VolumeFacts | None:
    """Tell of a volume what names no object."""
    if volume is None:
        return None
    return VolumeFacts(
        geometry=volume.geometry,
        slices=len(volume.slices),
        plane=volume.plane,
        spacing=(volume.steps.median, *volume.pixel_spacing),
        steps=volume.steps,
        tilt=volume.tilt,
        affine=volume.affine,
    )
