"""The raw map as JSON, with everything that is known of it."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from typing_extensions import override

from service.errors.studies import FormatNotApplicable
from workers.drawing.region import RULE
from workers.formats.base import FORMATS, Format
from workers.formats.sheet import Sheet

INLINE = 1 << 20
"""Most values that stand inline; larger maps are to be had as arrays."""

ARRAYS = ("npy", "npz", "nifti")


@FORMATS.register("json")
class Json(Format):
    """Values, geometry, score, checks and provenance in one document."""

    title = "Raw map and its facts as JSON"
    media_type = "application/json"
    extension = "json"

    @override
    def write(self, sheet: Sheet, to: Path) -> None:
        values, _ = sheet.array
        if values.size > INLINE:
            raise FormatNotApplicable(
                "The map has more values than a JSON document may hold; ask for it as an array.",
                reason="too_many_values",
                values=values.size,
                limit=INLINE,
                alternatives=[*ARRAYS],
            )
        document = {
            "schema_number": 1,
            **_identity(sheet),
            "map": _map(sheet),
            "display": _display(sheet),
            "region": _region(sheet),
            "variables": _variables(sheet),
            "instances": [each.model_dump(mode="json") for each in sheet.record.instances],
            "view": _view(sheet),
            "extras": sheet.record.extras,
            "parity": sheet.record.parity.model_dump(mode="json"),
            "trust": _trust(sheet),
            "checks": [check.model_dump(mode="json") for check in sheet.record.checks],
            "partial": sheet.record.partial,
            "provenance": _provenance(sheet),
            "notice": "Research use only. Not for diagnosis.",
        }
        to.write_bytes(orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY))


def _identity(sheet: Sheet) -> dict[str, Any]:
    record = sheet.record
    return {
        "method": {
            "name": record.method,
            "version": record.method_version,
            "parameters": record.parameters,
            "layer": None if record.layer is None else record.layer.model_dump(mode="json"),
        },
        "target": record.target.model_dump(mode="json"),
        "image": {
            **({} if record.facts.slices is None else {"slices": record.facts.slices}),
            "rows": record.facts.rows,
            "columns": record.facts.columns,
            "modality": record.facts.modality,
            "photometric_interpretation": record.facts.photometric_interpretation,
        },
    }


def _map(sheet: Sheet) -> dict[str, Any]:
    """Return the values on the grid asked for, and where they lie in the image."""
    values, grid = sheet.array
    record, restriction = sheet.record, sheet.record.restriction
    return {
        "grid": "source" if sheet.record.on_source_grid else "native",
        "shape": list(values.shape),
        "axes": ["channel", *sheet.record.axes],
        "signed": sheet.record.signed,
        "degenerate": sheet.record.degenerate,
        "affine": grid.affine,
        "cell": list(grid.cell),
        "native_cell": list(sheet.grid.cell),
        "peak": _peak(sheet),
        "padding_share": record.padding_share,
        "seen_share": sheet.seen_share,
        **({} if record.volume is None else {"peak_image": _peak_image(sheet)}),
        "restriction": None if restriction is None else restriction.model_dump(mode="json"),
        "values": _finite(values),
    }


def _view(sheet: Sheet) -> dict[str, Any] | None:
    """Return which of several views it is, and its share of all."""
    view = sheet.record.view
    return None if view is None else view.model_dump(mode="json")


def _variables(sheet: Sheet) -> list[dict[str, Any]]:
    """Return what stood beside the image, each with what it adds; null where nobody has said."""
    shares = {each.key: each.relevance for each in sheet.record.variables}
    return [
        {**each.model_dump(mode="json"), "relevance": shares.get(each.key)}
        for each in sheet.record.given
    ]


def _finite(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replace what JSON cannot say; the checks tell that it was there."""
    return np.ascontiguousarray(np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0))


def _peak(sheet: Sheet) -> list[float] | None:
    """Return the most relevant place of the image, in source pixels (row, column)."""
    return None if sheet.peak is None else list(sheet.peak[0])


def _peak_image(sheet: Sheet) -> dict[str, Any] | None:
    """Return which image of the study the slice of the peak is."""
    return None if sheet.peak_image is None else sheet.peak_image.place


def _trust(sheet: Sheet) -> dict[str, Any]:
    """Return the report, with the probe bank from which its `p` can be computed again."""
    probes = sheet.record.probes
    return {
        **sheet.record.trust.model_dump(mode="json"),
        "probes": None if probes is None else probes.model_dump(mode="json"),
    }


def _display(sheet: Sheet) -> dict[str, Any]:
    """Tell how pictures of this map are scaled; the values above are not."""
    scale = sheet.scale
    window = sheet.record.facts.window
    return {
        "full_scale": None if scale is None else scale.full,
        "own_scale": None if scale is None else scale.own,
        "joint_scale": None if scale is None else scale.joint,
        "drawn": scale is not None and not scale.faint,
        "window": None if window is None else {"center": window[0], "width": window[1]},
    }


def _region(sheet: Sheet) -> dict[str, Any] | None:
    """Tell where the evidence reaches half of full strength, as the segmentation has it."""
    region = sheet.region
    if region is None:
        return None
    return {
        "rule": RULE,
        "threshold": region.threshold,
        "pixels": region.pixels,
        "share_of_image": region.pixels / region.mask.size,
        "share_of_evidence": region.mass,
    }


def _provenance(sheet: Sheet) -> dict[str, Any]:
    record = sheet.record
    return {
        "model": record.model.model_dump(mode="json"),
        "executed_on": record.executed_on,
        "precision": record.precision,
        "software": {"name": "whylight", "version": record.software},
        "job_created": record.created,
        "lossy_source": record.facts.lossy,
        "image_warnings": list(record.facts.warnings),
    }
