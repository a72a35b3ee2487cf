"""A volume that a model takes, or a refusal that says why there is none."""

from typing import Any, Final

from service.domain.inputs import Range, VolumeRules
from service.domain.volume import Geometry, Volume
from service.errors.base import WhylightError
from service.errors.studies import (
    DuplicateSlices,
    IrregularSlices,
    MissingSlices,
    MixedSlices,
    NoSliceGeometry,
    NotAcceptedByModel,
    ShearedVolume,
    TooFewSlices,
)
from workers.volumes.assemble import Assembly
from workers.volumes.planes import SHOWN, named

SHEARED: Final = "sheared_volume"
"""Warning of a volume whose slices are shifted against each other, as the model sees them."""


def demand_volume(assembly: Assembly, rules: VolumeRules, slices: int) -> Volume:
    """Return the volume of an assembly if the model was made for such a one.

    Parameters
    ----------
    assembly
        Of all slices of the series that the model accepts one by one.
    rules
        Of the model.
    slices
        How many slices there are.

    Raises
    ------
    TooFewSlices, NoSliceGeometry, MixedSlices, DuplicateSlices, MissingSlices, IrregularSlices
        The slices form no volume.
    ShearedVolume, NotAcceptedByModel
        They form one that the model was not made for.
    """
    if slices < rules.least_slices:
        raise TooFewSlices(
            "The series has fewer slices than the model needs; send it whole.",
            slices=slices,
            least=rules.least_slices,
        )
    volume = assembly.volume
    if volume is None:
        raise _refusal(assembly)
    if volume.geometry is Geometry.SHEARED and not rules.sheared:
        raise ShearedVolume(
            "The slices lie aslant, as of a tilted gantry, and the model was not made for that."
            " Send a series that was reformatted to upright slices, or ask a model that says"
            " 'accept.volume.sheared'.",
            tilt_degrees=round(volume.tilt, 3),
        )
    if broken := _broken(volume, rules):
        raise NotAcceptedByModel(
            f"The volume is not what the model was made for, by its {' and '.join(broken)}: send a"
            " series (of another reconstruction, say) that is as 'accepts' tells, or ask a model"
            " that takes such ones.",
            rules=[*broken],
            accepts=rules.model_dump(mode="json"),
            orientation=volume.plane,
            slice_spacing=round(volume.steps.median, 4),
            pixel_spacing=[round(each, 4) for each in volume.pixel_spacing],
        )
    return volume


def _refusal(assembly: Assembly) -> WhylightError:
    """Tell why the planes are no volume."""
    steps = assembly.steps
    figures: dict[str, Any] = {}
    if steps is not None:
        figures = {f"{name}_step": round(value, 4) for name, value in steps}
        figures["gaps"] = [
            {
                "after": gap.after.place,
                "before": gap.before.place,
                "step": round(gap.step, 4),
            }
            for gap in assembly.gaps[:SHOWN]
        ]
    match assembly.geometry:
        case Geometry.MIXED:
            return MixedSlices(
                "The slices of the series do not go together; 'slices' names those that are unlike"
                " most. Send those of one volume alone.",
                differing=[*assembly.differing],
                slices=named(assembly.odd),
                unlike=len(assembly.odd),
            )
        case Geometry.DUPLICATES:
            return DuplicateSlices(
                "Several slices of the series lie at one place, or next to it; 'gaps' names them."
                " Send one volume alone, not a sequence of some.",
                **figures,
            )
        case Geometry.IRREGULAR if assembly.missing:
            return MissingSlices(
                "Slices of the series are missing; 'gaps' names where. Send it whole.",
                missing=assembly.missing,
                **figures,
            )
        case Geometry.IRREGULAR:
            return IrregularSlices(
                "The slices of the series are not evenly spaced, and nothing is made up between"
                " them; 'gaps' names the steps that are off. Send an evenly spaced series.",
                **figures,
            )
        case _:
            return NoSliceGeometry(
                "The slices do not say where they lie in the patient: position, orientation or"
                " pixel spacing lacks or is not valid. 'slices' names them.",
                slices=named(assembly.unplaced),
                unplaced=len(assembly.unplaced),
            )


def _broken(volume: Volume, rules: VolumeRules) -> tuple[str, ...]:
    """Return the rules that a volume breaks, by the manifest's field names."""
    kept = {
        "orientations": not rules.orientations or volume.plane in rules.orientations,
        "slice_spacing": _within(rules.slice_spacing, volume.steps.least, volume.steps.greatest),
        "pixel_spacing": _within(rules.pixel_spacing, *volume.pixel_spacing),
    }
    return tuple(name for name, holds in kept.items() if not holds)


def _within(allowed: Range | None, *values: float) -> bool:
    return allowed is None or all(allowed[0] <= value <= allowed[1] for value in values)
