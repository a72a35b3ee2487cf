"""What this worker can do, told out of the registries and the probes."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from service.domain.catalog import (
    CalibrationEntry,
    Catalog,
    CertificateEntry,
    FormatEntry,
    LayerEntry,
    MeasureEntry,
    MemoryEntry,
    MethodEntry,
    ModelEntry,
    SurrogateEntry,
)
from service.domain.certificate import MethodCalibration, MethodRecord
from service.domain.manifest import Manifest
from service.entries import entry_of
from service.errors.base import Failure, WhylightError
from service.errors.models import InvalidPackage
from service.packages import PackageRecord
from service.wording import nearest
from workers.architectures.base import ARCHITECTURES
from workers.formats.base import FORMATS
from workers.measures.base import MEASURES
from workers.methods.base import METHODS, Method, ModelFacts
from workers.passes import Ability
from workers.precisions import Precisions
from workers.records import PROTOCOL, Pending, Records
from workers.runtimes.base import Probe
from workers.tiling import Tiling
from workers.views import cost_of

NOT_ALLOWED: Final = "Its package allows other methods alone: 'explain.methods' lists them."

ALIKE: Final = (
    "It marks all that looks alike on the image, and so cannot explain one box of several;"
    " 'layer_cam' and 'hires_cam' keep the place, and so does whatever needs no layer."
)

STRANGE: Final = (
    "It weighs the channels of a layer alike everywhere, and an autoencoder errs where one place is"
    " not as the others; 'layer_cam' and 'hires_cam' keep the place, and so does whatever needs no"
    " layer."
)

PLACED: Final[Mapping[str, str]] = {"detection": ALIKE, "reconstruction": STRANGE}
"""By task: why what weighs channels alike everywhere cannot explain it."""

EVEN: Final = (
    "It weighs the channels of a layer alike in every instance of a bag, which the model does not:"
    " 'layer_cam' and 'hires_cam' keep the place, and so does whatever needs no layer."
)

SPANNING: Final = (
    "The slices are instances of a bag, and it hides boxes or segments that span several of them;"
    " every result tells how far the score falls without each instance."
)


def catalog(models: Iterable[ModelEntry]) -> Catalog:
    """Return everything that this worker can do with `models` at hand."""
    return Catalog(
        methods=tuple(_method(name) for name in METHODS),
        models=tuple(models),
        formats=tuple(_format(name) for name in FORMATS),
        measures=tuple(_measure(name) for name in MEASURES),
        unavailable={
            **METHODS.unavailable,
            **FORMATS.unavailable,
            **MEASURES.unavailable,
            **ARCHITECTURES.unavailable,
        },
    )


def ready_model(
    manifest: Manifest,
    package: str,
    probe: Probe,
    shape: Sequence[int],
    facts: ModelFacts,
    *,
    load_seconds: float | None = None,
    unnoticed: Mapping[str, str] | None = None,
) -> ModelEntry:
    """Return the entry of a model that passed its self-tests.

    Parameters
    ----------
    shape
        Shape of the model's input without the batch axis.
    load_seconds
        How long it took to read, test and probe it.
    unnoticed
        What its self-tests would not notice, by field.
    """
    refused = {name: reason for name in METHODS if (reason := refusal(name, probe, manifest))}
    one, pieces = _pieces(manifest, shape)
    served = tuple(name for name in METHODS if name not in refused)
    return entry_of(manifest, package).model_copy(
        update={
            "state": "ready",
            "shape": tuple(shape),
            "abilities": tuple(sorted(probe.abilities)),
            "layers": tuple(
                LayerEntry(name=each.name, shape=each.shape, reason=each.reason)
                for each in probe.layers
            ),
            "refused_layers": dict(probe.refused),
            "unnoticed": dict(unnoticed or {}),
            "methods": served,
            "refused": refused,
            "surrogate": _surrogate(manifest, probe, served),
            "row_seconds": dict(probe.row_seconds),
            "memory": MemoryEntry(fixed_bytes=probe.fixed_bytes, row_bytes=dict(probe.row_bytes)),
            "load_seconds": None if load_seconds is None else round(load_seconds, 3),
            "method_rows": {
                name: _rows(name, one, pieces, facts, several=manifest.image.several)
                for name in served
            },
        }
    )


def defaults(names: Iterable[str], facts: ModelFacts) -> dict[str, Method]:
    """Return methods as a request without parameters gets them; some need a parameter."""
    found: dict[str, Method] = {}
    for name in names:
        with suppress(WhylightError, ValueError):
            found[name] = METHODS[name]().settled(facts)
    return found


def certified(
    entry: ModelEntry, records: Records, precisions: Precisions, facts: ModelFacts
) -> ModelEntry:
    """Return a model's entry with what was measured of methods on it so far."""
    ordinary = defaults(entry.methods, facts)
    every = [
        _certificate(
            records.subject.identify(method),
            method,
            record,
            default=ordinary.get(method.name) == method,
        )
        for method, record in records.all()
    ]
    return entry.model_copy(
        update={
            "certificates": tuple(sorted(every, key=lambda each: not each.default)),
            "precisions": precisions.all(),
            "refused_precisions": {"bfloat16": why} if (why := precisions.hindrance) else {},
        }
    )


def unavailable_model(
    record: PackageRecord, manifest: Manifest | None, failure: Failure
) -> ModelEntry:
    """Return the entry of a model that cannot be served, with the reason.

    `manifest` is `None` when not even that could be read.
    """
    if manifest is not None:
        return entry_of(manifest, record.package).model_copy(update={"failure": failure})
    return ModelEntry(
        name=record.name,
        version=record.version,
        package=record.package,
        title=record.title,
        task="",
        intended_use="",
        not_for="",
        license="",
        runtime="",
        state="unavailable",
        failure=failure,
    )


def demand_methods(manifest: Manifest) -> None:
    """Require that the methods which a manifest allows are there, installed or not.

    Raises
    ------
    InvalidPackage
        One is not.
    """
    known = {*METHODS, *METHODS.unavailable}
    for number, name in enumerate(manifest.explain.methods):
        if name not in known:
            raise InvalidPackage(
                f"There is no method '{name}'.{nearest(name, known)}",
                pointer=f"/explain/methods/{number}",
            )


def refusal(method: str, probe: Probe, manifest: Manifest) -> str | None:
    """Return why a model cannot serve a method, or `None` when it can."""
    if manifest.explain.methods and method not in manifest.explain.methods:
        return NOT_ALLOWED
    if METHODS[method].marks_alike and manifest.task in PLACED:
        return PLACED[manifest.task]
    slices = manifest.image.bag is not None and not manifest.image.several
    if slices and METHODS[method].needs <= {Ability.FORWARD}:
        return SPANNING
    if slices and METHODS[method].marks_alike:
        return EVEN
    missing = METHODS[method].needs - probe.abilities
    if not missing:
        return None
    names = ", ".join(sorted(ability.replace("_", " ") for ability in missing))
    reason = f"It needs {names}, which runtime '{manifest.runtime}' cannot give for this model."
    said = [why for able, why in sorted(probe.unable.items()) if able in missing]
    reason = " ".join([reason, *dict.fromkeys(said)])
    if Ability.LAYER_GRADIENT in missing and probe.refused:
        reason += " Declared layers that cannot be used: " + "; ".join(
            f"{layer} ({why})" for layer, why in sorted(probe.refused.items())
        )
        reason += ". Mend 'explain.layers' of the package, or leave it out."
    return reason


def _surrogate(manifest: Manifest, probe: Probe, served: Sequence[str]) -> SurrogateEntry | None:
    """Return what is computed on a network that stands in for the model."""
    if probe.difference is None:
        return None
    return SurrogateEntry(
        methods=tuple(name for name in served if not probe.computes(METHODS[name].needs)),
        difference=probe.difference,
        tolerance=manifest.surrogate.tolerance,
    )


def _pieces(manifest: Manifest, shape: Sequence[int]) -> tuple[Sequence[int], dict[str, int]]:
    """Return the shape of what a method is run on, and the windows of a row by kind of pass.

    A box has derivatives in its own window alone, and is seen by those about it.
    """
    rules = manifest.sliding_window
    if rules is None:
        return shape, {"forward": 1, "gradient": 1}
    tiling = Tiling(rules, tuple(shape[1:]))
    if rules.blend == "none":
        _, part = tiling.around(tiling.crowd)
        return (shape[0], *part.shape), {"forward": part.count, "gradient": 1}
    return shape, {"forward": tiling.count, "gradient": tiling.count}


def _rows(
    method: str,
    shape: Sequence[int],
    pieces: Mapping[str, int],
    facts: ModelFacts,
    *,
    several: bool,
) -> dict[str, int]:
    """Return the rows of one target by default, for the estimate at admission.

    Parameters
    ----------
    pieces
        Windows of a row by kind of pass.
    several
        Whether it is given several images at once.
    """
    try:
        cost = cost_of(METHODS[method]().settled(facts), shape, 1, several=several)
    except (WhylightError, ValueError):  # a method without defaults cannot be estimated
        return {}
    rows = {"forward": cost.forward_rows, "gradient": cost.gradient_rows}
    return {kind: count * pieces[kind] for kind, count in rows.items()}


def _certificate(
    id_: str, method: Method, record: MethodRecord | Pending, *, default: bool
) -> CertificateEntry:
    """Return what is known of one method, without its templates."""
    parameters = method.model_dump(mode="json")
    if record == "pending":
        return CertificateEntry(
            method=method.name,
            parameters=parameters,
            default=default,
            id=id_,
            outcome="pending",
            protocol=PROTOCOL,
        )
    calibration = record.calibration
    known = {
        "method": method.name,
        "parameters": parameters,
        "default": default,
        "id": id_,
        "calibration": None if calibration is None else _calibration(calibration),
    }
    return CertificateEntry.model_validate({**dict(record.certificate), **known})


def _calibration(calibration: MethodCalibration) -> CalibrationEntry:
    fields = ("maps", "supported", "weak", "r", "p", "reference")
    return CalibrationEntry(**{name: getattr(calibration, name) for name in fields})


def _method(name: str) -> MethodEntry:
    method = METHODS[name]
    return MethodEntry(
        name=name,
        version=method.version,
        title=method.title,
        parameters=method.model_json_schema(),
        needs=tuple(sorted(method.needs)),
        signed=method.signed,
        sense=method.sense,
        paper=method.paper,
        cost=method.cost,
        weaknesses=method.weaknesses,
        weak=method.weak,
        differentiates=method.differentiates(),
        linear=method.linear,
        partial_map=method.partial_map,
    )


def _format(name: str) -> FormatEntry:
    format_ = FORMATS[name]
    return FormatEntry(
        name=name,
        title=format_.title,
        media_type=format_.media_type,
        extension=format_.extension,
    )


def _measure(name: str) -> MeasureEntry:
    measure = MEASURES[name]
    return MeasureEntry(
        name=name,
        version=measure.version,
        title=measure.title,
        parameters=measure.model_json_schema(),
        passes=measure.passes,
        when=measure.when,
        meaning=measure.meaning,
        limits=measure.limits,
    )
