"""Whether the slices of a volume mean the same by their values, as their headers say."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service.dicom.dataset import Parsed, value_of
from service.dicom.header import Header
from service.errors.studies import MixedSlices, UnsupportedImage
from workers.pixels.modality import modality_of
from workers.volumes.planes import Plane, named

UNITS: Final = {"CT": "HU"}
"""Rescale Type where none is said, by modality (PS3.3 C.8.2.1); elsewhere it is unspecified."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What one slice's values are."""

    photometric_interpretation: str

    rescale_type: str

    units: str
    """Of a PET image."""

    unscaled: bool
    """Whether it says no rescale that can be used."""

    moved: bool
    """Whether its rescale leads to other values than the stored ones."""


def meaning_of(found: Parsed, header: Header) -> Meaning:
    """Return what the values of a frame are, of which `flatten` brought all to the top."""
    try:
        modality = modality_of(found.dataset, signed=header.pixel_representation == 1)
    except UnsupportedImage:
        modality = None
    kind = str(value_of(found.dataset, "RescaleType") or "").strip()
    return Meaning(
        photometric_interpretation=header.photometric_interpretation,
        rescale_type=kind or UNITS.get(header.modality, "US"),
        units=str(value_of(found.dataset, "Units") or "").strip(),
        unscaled=modality is None or not modality.declared,
        moved=modality is not None and not modality.identity,
    )


def demand_one_meaning(slices: Sequence[Meaning], planes: Sequence[Plane]) -> None:
    """Refuse slices whose values cannot stand in one array; each may have its own slope.

    Parameters
    ----------
    slices
        What the values of each are.
    planes
        The slices themselves, in the same order.

    Raises
    ------
    MixedSlices
        They differ in photometric interpretation, Rescale Type or Units, or some have no
        rescale where others have one that tells: they would be off by the others' intercept.
    """
    unscaled = [plane for plane, each in zip(planes, slices, strict=True) if each.unscaled]
    if unscaled and any(each.moved for each in slices):
        raise MixedSlices(
            f"{len(unscaled)} of {len(slices)} slices have no rescale that can be used, and the"
            " others have one, so their values do not go together; 'slices' names them. Send the"
            " series as it was made.",
            differing=["rescale"],
            slices=named(unscaled),
            slices_without_rescale=len(unscaled),
        )
    names = ("photometric_interpretation", "rescale_type", "units")
    said = [tuple(getattr(each, name) for name in names) for each in slices]
    ((usual, _),) = Counter(said).most_common(1)
    odd = [plane for plane, each in zip(planes, said, strict=True) if each != usual]
    if odd:
        values = zip(names, zip(*said, strict=True), strict=True)
        raise MixedSlices(
            "The slices of the series do not go together; 'slices' names those that are unlike"
            " most. Send those of one volume alone.",
            differing=[name for name, each in values if len({*each}) > 1],
            slices=named(odd),
            unlike=len(odd),
        )
