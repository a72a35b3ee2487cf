"""Render: every map to the artifacts that were asked for."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from service.domain.artifact import Artifact
from service.domain.explanation import ModelRef, Omission
from workers.binding import demand_bound
from workers.formats.record import MapRecord
from workers.leeway import leeway
from workers.methods.base import METHODS
from workers.parcels import Attribution, Fetched, Judged, Rendered, RenderedFile, Verdict
from workers.slots import Slots

LIMIT: Final = 60.0
"""Seconds for one map, beside what a large volume is allowed."""

NOTHING: Final = MappingProxyType({"artifacts": (), "files": (), "omitted": ()})
"""What comes of a map that there is none of."""


def render(
    judged: Judged,
    slots: Slots,
    model: ModelRef,
    *,
    limit: float = LIMIT,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Rendered:
    """Draw and encode every map in a supervised process.

    Parameters
    ----------
    slots
        Where to draw.
    model
        The model as the results name it.
    limit
        Seconds after which the drawing of one map is ended, beside what `leeway` adds.
    on_progress
        Called after each map with the share that is done; what it raises ends
        the drawing.

    Returns
    -------
    Rendered
        A tuple of files for each attribution, and one of the artifacts that
        do not suit it; empty for one that failed.

    Raises
    ------
    ResultDamaged
        A map is not bound to this job, or is no longer what the method made.
    UnknownFormat
        A format is asked for that this worker does not know.
    StageTimeout, SlotDied
        Drawing took too long, or too much memory.
    """
    prepared = judged.attributed.prepared
    files, omitted = [], []
    pairs = zip(judged.attributed.attributions, judged.verdicts, strict=True)
    for number, (attribution, verdict) in enumerate(pairs, start=1):
        view = None if attribution.target is None else attribution.target.view
        asked = digest_of(prepared.of(view).decoded.fetched)
        record = record_of(judged, attribution, verdict, model, number=number, digest=asked)
        if record is None:
            answer: Mapping[str, Any] = NOTHING
        else:
            answer = _write(judged, attribution, record, slots, limit)
        files.append(_files(answer["artifacts"], answer["files"]))
        omitted.append(tuple(Omission.model_validate(each) for each in answer["omitted"]))
        on_progress(number / len(judged.verdicts))
    return Rendered(judged, tuple(files), tuple(omitted))


def digest_of(fetched: Fetched) -> str:
    """Return the SHA-256 of what was asked of which image.

    How the answer is wanted (formats, grid, priority, label) is left out: the
    same question about the same image names the same derived series.
    """
    asked = fetched.request.question()
    job, instance = fetched.lease.job, fetched.instance
    parts = [1, job.tenant, job.package, instance.sop_instance_uid, instance.sha256, asked]
    if fetched.series:  # whichever of its objects came first
        objects = sorted((each.sop_instance_uid, each.sha256) for each in fetched.instances)
        parts = [1, job.tenant, job.package, objects, asked]
    elif fetched.view is not None:  # it was seen with the others
        objects = [(each.sop_instance_uid, each.sha256) for each in fetched.seen_with]
        parts = [1, job.tenant, job.package, objects, fetched.view.key, asked]
    elif instance.number_of_frames > 1:
        parts.append(fetched.frame)
    if fetched.beside:
        parts.append([each.sha256 for each in fetched.beside])
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def record_of(
    judged: Judged,
    attribution: Attribution,
    verdict: Verdict,
    model: ModelRef,
    *,
    number: int,
    digest: str,
) -> MapRecord | None:
    """Return all that is said of one map; `None` when there is no map."""
    if attribution.grid is None or attribution.target is None or verdict.trust is None:
        return None
    decoded = judged.attributed.prepared.of(attribution.target.view).decoded
    bag = decoded.fetched.manifest.image.bag
    named = decoded.fetched.manifest.named
    return MapRecord(
        number=number,
        method=attribution.method,
        method_version=METHODS[attribution.method].version,
        method_title=METHODS[attribution.method].title,
        parameters=attribution.parameters,
        layer=attribution.layer,
        target=attribution.target,
        finding=next((each.code for each in named if each.key == attribution.target.about), None),
        signed=attribution.signed,
        sense=METHODS[attribution.method].sense,
        executed_on=attribution.executed_on,
        degenerate=verdict.degenerate,
        blank=verdict.blank,
        partial=attribution.partial,
        given=judged.attributed.prepared.variables,
        variables=attribution.variables,
        instances=attribution.instances,
        instances_shown=0 if bag is None else bag.shown,
        view=attribution.view,
        extras=attribution.extras,
        checks=verdict.checks,
        trust=verdict.trust,
        parity=judged.attributed.parity.about(attribution.target.about),
        probes=verdict.probes,
        reference=verdict.reference,
        model=model,
        precision=decoded.fetched.request.precision,
        facts=decoded.facts,
        affine=tuple(tuple(float(value) for value in row) for row in attribution.grid.affine),
        on_source_grid=decoded.fetched.request.grid == "source",
        digest=digest,
        created=decoded.fetched.lease.job.created,
        software=version("whylight"),
        style=decoded.fetched.request.style,
        transfer_syntax=decoded.fetched.request.dicom.transfer_syntax,
        slices=decoded.fetched.request.dicom.slices,
        objects=decoded.fetched.request.dicom.objects,
        volume=decoded.volume,
        restriction=attribution.restriction,
        padding_share=attribution.padding_share,
    )


def _write(
    judged: Judged, attribution: Attribution, record: MapRecord, slots: Slots, limit: float
) -> Mapping[str, Any]:
    """Have one map's files written; its values travel as a file. Return `task`'s answer."""
    prepared = judged.attributed.prepared
    decoded = prepared.of(record.target.view).decoded
    folder = decoded.fetched.scratch
    values = folder / f"map_{record.number}.npy"
    np.save(values, np.asarray(attribution.values, np.float32), allow_pickle=False)
    message = {
        "record": record.model_dump(mode="json"),
        "map": str(values),
        "map_digest": demand_bound(attribution, prepared, record.model).map,
        "display": str(decoded.display),
        "header": str(decoded.header),
        "formats": list(decoded.fetched.request.artifacts),
        "folder": str(folder),
    }
    return slots.run("render", message, limit + leeway(decoded.facts.shape))


def _files(artifacts: Sequence[object], files: Sequence[str]) -> tuple[RenderedFile, ...]:
    return tuple(
        RenderedFile(Artifact.model_validate(artifact), Path(file))
        for artifact, file in zip(artifacts, files, strict=True)
    )
