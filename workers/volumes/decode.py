"""A series to one array on disk: first all headers, then slice by slice.

The headers alone say whether the slices form a volume, and how large it is;
nothing is allocated and no pixel is decoded before. The slices are decoded a
few at a time, so that a caller can tell progress and end it in between.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Final

import numpy as np
from numpy.lib.format import open_memmap
from pydicom.dataset import Dataset

from service.dicom.damage import is_damage
from service.dicom.dataset import Parsed, parsed
from service.dicom.frames import flatten
from service.dicom.header import Header, header_of
from service.dicom.photometric import GRAY
from service.domain.inputs import VolumeRules
from service.domain.value import Value
from service.domain.volume import Geometry, Volume
from service.errors.base import WhylightError
from service.errors.studies import (
    AbsurdDimensions,
    UndecodablePixels,
    UnsupportedImage,
)
from workers.formats.derived import Source
from workers.parcels import ImageFacts
from workers.pixels.decode import (
    DISPLAY,
    HEADER,
    MAX_SAMPLES,
    PADDING,
    PIXELS,
    DecodedFiles,
    Gray,
    facts_of,
    gray_of,
    keep_header,
)
from workers.pixels.display import show_gray
from workers.pixels.stored import read_stored
from workers.pixels.voi import Voi, Window
from workers.volumes.assemble import assemble
from workers.volumes.demand import SHEARED, demand_volume
from workers.volumes.meaning import Meaning, demand_one_meaning, meaning_of
from workers.volumes.planes import Plane, planes_of

MAX_VOXELS: Final = 256 << 20
PORTION: Final = 8 << 20
"""Voxels that are decoded at one go: a second or two of the slowest codec."""


class Place(Value):
    """Where a slice is read from."""

    file: int
    """Which of the files, counted from 0."""

    frame: int
    """Counted from 1."""


class Survey(Value):
    """What the headers of a series say."""

    volume: Volume
    places: tuple[Place, ...]
    """Of each slice, in the volume's order."""

    facts: ImageFacts
    """Of the middle slice."""

    window: tuple[float, float, str] | None
    """Center, width and shape of the one window through which all slices are shown; `None` where
    that is the middle slice's VOI LUT."""

    @property
    def portions(self) -> tuple[tuple[int, int], ...]:
        """First slice, and the one past the last, of what is decoded at one go."""
        step = max(1, PORTION // (self.volume.rows * self.volume.columns))
        count = len(self.places)
        return tuple((at, min(count, at + step)) for at in range(0, count, step))


class Portion(Value):
    """What was learned of some slices."""

    facts: ImageFacts
    padded: bool


def survey(
    files: Sequence[Path],
    scratch: Path,
    rules: VolumeRules,
    *,
    max_samples: int = MAX_SAMPLES,
    max_voxels: int = MAX_VOXELS,
) -> Survey:
    """Read all headers, put the slices in order, and make room for them in `scratch`.

    Parameters
    ----------
    files
        The objects of the series, in any order, each named by its instance in the study.
    scratch
        An existing folder; gets a slice's header and the arrays, still empty: the first
        slice's, or that of the first that has a Patient ID.
    rules
        Of the model.
    max_samples, max_voxels
        Most samples of a frame, and most voxels of a volume.

    Raises
    ------
    AbsurdDimensions
        The volume is over the limit.
    UnsupportedImage
        The slices are not gray.
    MixedSlices
        Their values mean different things.
    UndecodablePixels
        The middle slice is damaged.
    WhylightError
        Of `service.dicom.header.read_header` and `workers.volumes.demand.demand_volume`.
    """
    planes: list[Plane] = []
    places: list[Place] = []
    named: list[bool] = []
    meanings: list[Meaning] = []
    for number, file in enumerate(files):
        with _opened(file, max_samples) as (found, header):
            _demand_gray(header)
            _demand_room(header, len(planes), max_voxels)
            planes += planes_of(found, header, file.stem)
            frames = range(1, header.number_of_frames + 1)
            places += [Place(file=number, frame=frame) for frame in frames]
            named.append(bool(header.patient.id))
            meanings += [meaning_of(_alone(found, header, frame), header) for frame in frames]
    demand_one_meaning(meanings, planes)
    assembly = assemble(planes)
    volume = demand_volume(assembly, rules, len(planes))
    ordered = tuple(places[number] for number in assembly.order)
    kept = next((each for each in ordered if named[each.file]), ordered[0])
    _keep(files[kept.file], kept.frame, scratch, max_samples)
    facts, window = _looked_at(files, ordered[len(ordered) // 2], max_samples)
    for name, dtype in ((PIXELS, np.float32), (DISPLAY, np.uint8), (PADDING, np.bool_)):
        channels = (1,) if name == PIXELS else ()
        open_memmap(scratch / name, "w+", dtype, (*channels, *volume.shape))
    return Survey(
        volume=volume,
        places=ordered,
        facts=_of_volume(facts, volume, Source.read(scratch / HEADER).doubts()),
        window=None if window is None else (window.center, window.width, window.shape),
    )


def decode_portion(
    files: Sequence[Path],
    scratch: Path,
    seen: Survey,
    start: int,
    stop: int,
    *,
    max_samples: int = MAX_SAMPLES,
) -> Portion:
    """Decode slices ``[start, stop)`` of a surveyed series into the arrays in `scratch`.

    Raises
    ------
    UndecodablePixels, UnsupportedImage
        As of `workers.pixels.decode.decode_file`.
    """
    pixels = open_memmap(scratch / PIXELS, "r+")
    display = open_memmap(scratch / DISPLAY, "r+")
    padding = open_memmap(scratch / PADDING, "r+")
    voi = _voi(files, seen, max_samples)
    learned, padded = seen.facts, False
    for number, gray, facts in _frames(files, seen.places, range(start, stop), max_samples):
        values = gray.modality.apply(gray.pixels.values)
        pixels[0, number] = values
        display[number] = show_gray(values, voi, gray.padding, inverted=gray.inverted)
        if gray.padding is not None:
            padding[number], padded = gray.padding, True
        learned = merged(learned, facts)
    return Portion(facts=learned, padded=padded)


def finish(scratch: Path, seen: Survey, portions: Sequence[Portion]) -> DecodedFiles:
    """Return the files of a volume whose portions were all decoded."""
    facts = seen.facts
    for each in portions:
        facts = merged(facts, each.facts)
    padded = any(each.padded for each in portions)
    return DecodedFiles(
        facts=facts,
        pixels=scratch / PIXELS,
        display=scratch / DISPLAY,
        padding=scratch / PADDING if padded else None,
        header=scratch / HEADER,
    )


def decode_series(
    files: Sequence[Path], scratch: Path, rules: VolumeRules
) -> tuple[DecodedFiles, Volume]:
    """Decode a small series at once; errors as of `survey` and `decode_portion`."""
    seen = survey(files, scratch, rules)
    portion = decode_portion(files, scratch, seen, 0, len(seen.places))
    return finish(scratch, seen, [portion]), seen.volume


def merged(one: ImageFacts, other: ImageFacts) -> ImageFacts:
    """Return what is known of two parts of one volume together."""
    return one.model_copy(
        update={
            "bits_stored": max(one.bits_stored, other.bits_stored),
            "stored_minimum": min(one.stored_minimum, other.stored_minimum),
            "stored_maximum": max(one.stored_maximum, other.stored_maximum),
            "value_minimum": min(one.value_minimum, other.value_minimum),
            "value_maximum": max(one.value_maximum, other.value_maximum),
            "lossy": one.lossy or other.lossy,
            "uptake_scale": one.uptake_scale if one.uptake_scale == other.uptake_scale else None,
            "warnings": tuple(dict.fromkeys((*one.warnings, *other.warnings))),
        }
    )


@contextmanager
def _opened(file: Path, max_samples: int) -> Iterator[tuple[Parsed, Header]]:
    """Parse an object up to its pixels; what is unforeseen is a damaged object."""
    try:
        with parsed(file, max_samples=max_samples) as found:
            yield found, header_of(found, max_samples=max_samples, identified=False)
    except (WhylightError, MemoryError):
        raise
    except Exception as error:
        if not is_damage(error):
            raise
        raise UndecodablePixels("A slice's pixels or their description are damaged.") from error


def _demand_gray(header: Header) -> None:
    gray = header.samples_per_pixel == 1 and header.photometric_interpretation in GRAY
    if not gray or header.photometric_interpretation == "PALETTE COLOR":
        raise UnsupportedImage("A volume is read of gray slices alone.")


def _demand_room(header: Header, slices: int, limit: int) -> None:
    voxels = header.samples * (slices + header.number_of_frames)
    if voxels > limit:
        raise AbsurdDimensions(
            "The volume has more voxels than is allowed.", voxels=voxels, limit=limit
        )


def _keep(file: Path, frame: int, scratch: Path, max_samples: int) -> None:
    """Write a slice's header, for derived objects."""
    with _opened(file, max_samples) as (found, header):
        keep_header(file, flatten(found, frame, header.number_of_frames), scratch / HEADER)


def _looked_at(
    files: Sequence[Path], place: Place, max_samples: int
) -> tuple[ImageFacts, Window | None]:
    """Return what is known of one slice, and the window that shows it well; none of a VOI LUT."""
    with _opened(files[place.file], max_samples) as (found, header):
        gray, facts = _read(found, header, place.frame)
        voi = gray.voi or gray.chosen_window()
        if not isinstance(voi, Window):
            return facts, None
        shown = None if voi.shape == "SIGMOID" else (voi.center, voi.width)
        return facts.model_copy(update={"window": shown}), voi


def _voi(files: Sequence[Path], seen: Survey, max_samples: int) -> Voi:
    """Return what all slices are shown through: a window, or the middle slice's VOI LUT."""
    if seen.window is not None:
        return Window(*seen.window)
    place = seen.places[len(seen.places) // 2]
    with _opened(files[place.file], max_samples) as (found, header):
        gray, _ = _read(found, header, place.frame)
        return gray.voi or gray.chosen_window()


def _frames(
    files: Sequence[Path], places: Sequence[Place], numbers: range, max_samples: int
) -> Iterator[tuple[int, Gray, ImageFacts]]:
    """Decode slices one by one; an object is parsed once for all of its neighboring ones."""
    for file, run in groupby(numbers, key=lambda number: places[number].file):
        with _opened(files[file], max_samples) as (found, header):
            for number in run:
                yield number, *_read(found, header, places[number].frame)


def _alone(found: Parsed, header: Header, frame: int) -> Parsed:
    """Return one frame's object; the parsed one stays as it is, for the next frame."""
    flat = Dataset(dict(found.dataset.items()))  # `update` would go through all frames' groups
    return flatten(replace(found, dataset=flat), frame, header.number_of_frames)


def _read(found: Parsed, header: Header, frame: int) -> tuple[Gray, ImageFacts]:
    """Decode one frame."""
    alone = _alone(found, header, frame)
    pixels = read_stored(found, header, frame)
    gray = gray_of(alone, header, pixels)
    return gray, facts_of(alone, header, frame, gray.pixels, modality=gray.modality)


def _of_volume(facts: ImageFacts, volume: Volume, doubts: tuple[str, ...]) -> ImageFacts:
    """Return a slice's facts as those of the volume; `doubts` are of the header that is kept."""
    sheared = (SHEARED,) if volume.geometry is Geometry.SHEARED else ()
    return facts.model_copy(
        update={
            "slices": len(volume.slices),
            "frame": None,
            "regions": (),
            "warnings": (*doubts, *facts.warnings, *sheared),
        }
    )
