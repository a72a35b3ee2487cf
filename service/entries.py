"""What a manifest alone tells the catalog of a model, and whether it agrees with itself."""

from collections.abc import Iterator
from typing import Final

from service.domain.catalog import ClassEntry, ModelEntry, ValueEntry
from service.domain.manifest import Manifest
from service.domain.outputs import ClassSpec, ValueSpec
from service.domain.scores import scores_of
from service.domain.target import (
    DEFAULT_TARGETS,
    EmbeddingTarget,
    InstanceTarget,
    Segment,
    SegmentationTarget,
    Target,
)
from service.errors.requests import InvalidTarget
from service.targets import check_target
from service.wording import with_lists

UNDECIDED: Final = (
    "No class that is for use has a 'threshold', so a request that names no target would have"
    " nothing to explain: give the thresholds at which the model is used, or list what is explained"
    " under 'explain.default_targets', such as [{of: KEY}]."
)

OF_A_STUDY: Final = (
    "This is the name of an object in one study, and a package is for every study: leave the target"
    " out, and name the object in a request."
)


def entry_of(manifest: Manifest, package: str) -> ModelEntry:
    """Return what the manifest alone tells, as unavailable until it is probed."""
    return ModelEntry(
        name=manifest.id,
        version=manifest.version,
        package=package,
        title=manifest.title,
        task=manifest.task,
        intended_use=manifest.intended_use,
        not_for=manifest.not_for,
        license=manifest.license,
        runtime=manifest.runtime,
        state="unavailable",
        classes=tuple(_class(index, each) for index, each in enumerate(manifest.classes)),
        values=tuple(_value(index, each) for index, each in enumerate(manifest.values)),
        event=manifest.outputs[0].event,
        inputs=tuple(each.name for each in manifest.inputs),
        variables=manifest.variables,
        views=manifest.image.views,
        images=manifest.image.images,
        target_kinds=manifest.target_kinds,
        scores=scores_of(manifest.task, manifest.outputs[0]),
        default_targets=manifest.default_targets,
        accept=manifest.image.accept.model_dump(mode="json"),
    )


def contradictions(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield each field that says otherwise than `outputs`, as a JSON pointer, and what is wrong."""
    count = manifest.width
    for place, test in enumerate(manifest.selftests):
        if len(test.expected) != count:
            message = (
                f"'outputs' lists {outputs_of(manifest)}, and this self-test gives"
                f" {len(test.expected)}: name every output of the network, in its order."
            )
            yield f"/selftests/{place}/{manifest.activation}", message
    if "default_targets" not in manifest.explain.model_fields_set:
        if manifest.default_targets == DEFAULT_TARGETS and not manifest.decided:
            yield "/outputs/0/classes", UNDECIDED
        return
    entry = entry_of(manifest, "")
    for place, target in enumerate(manifest.explain.default_targets):
        where = f"/explain/default_targets/{place}"
        try:
            check_target(target, where, entry)
        except InvalidTarget as error:
            yield error.pointer or where, with_lists(error.detail, error.facts)
        else:
            if field := _of_a_study(target):
                yield f"{where}/{field}", OF_A_STUDY


def _of_a_study(target: Target) -> str | None:
    """Return the field of a target that names an object of one study, if one does."""
    match target:
        case EmbeddingTarget(similarity_to=str()):
            return "similarity_to"
        case InstanceTarget(instance=str()):
            return "instance"
        case SegmentationTarget(region=Segment(instance=str())):
            return "region/instance"
        case _:
            return None


def outputs_of(manifest: Manifest) -> str:
    """Return how many outputs a manifest names, in words."""
    one, many = ("value", "values") if manifest.values else ("class", "classes")
    if manifest.outputs[0].event is not None:
        one, many = "number", "numbers"
    return f"{manifest.width} {one if manifest.width == 1 else many}"


def _class(index: int, spec: ClassSpec) -> ClassEntry:
    return ClassEntry(
        key=spec.key,
        label=spec.label,
        index=index,
        threshold=spec.threshold,
        not_for_use=spec.not_for_use,
        code=spec.code.model_dump() if spec.code else None,
    )


def _value(index: int, spec: ValueSpec) -> ValueEntry:
    return ValueEntry(
        key=spec.key,
        label=spec.label,
        index=index,
        unit=spec.unit,
        reference=spec.reference,
        not_for_use=spec.not_for_use,
        code=spec.code.model_dump() if spec.code else None,
    )
