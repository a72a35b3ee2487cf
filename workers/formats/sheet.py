"""A sheet: one map's record, values and pictures, each made once for all formats."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.domain.explanation import (
    InstanceShare,
)
from service.domain.grid import Grid
from service.domain.request import MOST_SLICES
from service.domain.volume import Slice, Volume
from workers.drawing import resample
from workers.drawing.legend import legible
from workers.drawing.overlay import Rgb, Scale, joint_scale, scale_of
from workers.drawing.picture import Words, draw
from workers.drawing.region import Region, salient
from workers.formats.record import MapRecord
from workers.restriction import parts, peak, seen_share

SHOWN: Final = 0.9
"""Share of a volume's evidence that the slices on pictures hold."""

KEY, MOST_KEY = 0.5, 10
"""Share of a volume's evidence that its key slices hold, and how many these are at most."""


@dataclass(frozen=True, slots=True)
class Made:
    """A DICOM object that was made of a sheet, as others refer to it."""

    format: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


@dataclass
class Sheet:
    """What a format may draw from; files are read when they are first used."""

    record: MapRecord
    map_file: Path
    display_file: Path
    header_file: Path
    made: list[Made] = field(default_factory=list)
    """The DICOM objects that were written so far."""

    @cached_property
    def values(self) -> NDArray[np.float32]:
        """Raw values, float32, shape ``(C, *grid.shape)``; they stay in their file."""
        return np.asarray(np.load(self.map_file, mmap_mode="r", allow_pickle=False))

    @cached_property
    def grid(self) -> Grid:
        """The map's own grid."""
        return Grid(self.values.shape[1:], np.array(self.record.affine))

    @cached_property
    def array(self) -> tuple[NDArray[np.float32], Grid]:
        """Raw values on the grid that was asked for, and that grid."""
        if not self.record.on_source_grid:
            return self.values, self.grid
        return self._on_source(self.values), Grid.identity(self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns of the source image; slices first, of a volume."""
        return self.record.facts.shape

    @cached_property
    def relevance(self) -> NDArray[np.float32]:
        """Relevance of each native cell, shape ``grid.shape``: the channels' sum."""
        return self.values[0] if len(self.values) == 1 else np.asarray(self.values.sum(axis=0))

    @cached_property
    def finite_relevance(self) -> NDArray[np.float32]:
        """The same, with zero for what is not finite."""
        relevance = self.relevance
        if np.isfinite(relevance.min()) and np.isfinite(relevance.max()):
            return relevance
        return np.nan_to_num(relevance, nan=0.0, posinf=0.0, neginf=0.0)

    @cached_property
    def source_relevance(self) -> NDArray[np.float32]:
        """Relevance of each source pixel, shape ``shape``; not finite counts as zero."""
        return np.ascontiguousarray(self._on_source(self.finite_relevance[None])[0])

    @cached_property
    def pages(self) -> tuple[int, ...]:
        """The number of each slice of a volume, as people count them in the series."""
        return self._volume.pages

    @cached_property
    def slices(self) -> tuple[int, ...]:
        """A volume's slices that pictures show, counted from 0: all, or the most relevant.

        A map without evidence is shown on the middle slice.
        """
        if self.record.slices == "all" and self.record.target.slice is None:
            return tuple(range(len(self._volume.slices)))
        return self.relevant_slices

    @cached_property
    def relevant_slices(self) -> tuple[int, ...]:
        """The fewest slices of the volume that hold `SHOWN` of its evidence, in their order.

        `MOST_SLICES` at most. Of a bag, those of the instances without which the score falls
        most, or the one that is asked about.
        """
        if self.record.target.slice is not None:
            return (self.record.target.slice - 1,)
        if self.record.instances:
            helping = [slice_of(each) for each in self.record.helping]
            return tuple(sorted(helping)) or (slice_of(self.record.instances[0]),)
        return self._fewest(SHOWN, MOST_SLICES)

    @cached_property
    def key_slices(self) -> tuple[int, ...]:
        """Those to look at first: the fewest that hold `KEY` of the evidence, `MOST_KEY` at most.

        Of a bag, as `relevant_slices`.
        """
        if self.record.target.slice is not None or self.record.instances:
            return self.relevant_slices
        return self._fewest(KEY, MOST_KEY)

    def _fewest(self, share: float, most: int) -> tuple[int, ...]:
        """Return the fewest slices that hold a share of the evidence, `most` at most, in order.

        Without evidence, the middle slice.
        """
        count = len(self._volume.slices)
        laid = resample.Laid.of(self.finite_relevance[None], self.grid)
        covered = self.grid.covered(self.shape)
        _, *plane = (covered[along] for along in self.grid.order)
        masses = laid.slice_masses(count, plane, signed=self.record.signed)
        if self.record.degenerate or not masses.any():
            return (count // 2,)
        ranked = np.argsort(-masses, kind="stable")
        enough = int(np.searchsorted(np.cumsum(masses[ranked]), share * masses.sum())) + 1
        return tuple(sorted(int(each) for each in ranked[: min(enough, most)]))

    @cached_property
    def peak(self) -> tuple[tuple[float, ...], float] | None:
        """The most relevant place of the image (row, column) and its value, as `restriction.peak`.

        Of a volume (slice, row, column); `None` of a map that says nothing there.
        """
        if self.record.degenerate or self.record.blank:
            return None
        return peak(self.finite_relevance, self.grid, self.shape, self.record.regions)

    @cached_property
    def seen_share(self) -> float:
        """Share of the image that the map covers; below 1 where the model's steps crop."""
        return seen_share(self.grid, self.shape)

    @cached_property
    def region(self) -> Region | None:
        """The salient region of the source image; `None` when there is no evidence at all."""
        return None if self.scale is None else salient(self.source_relevance, self.scale.full)

    @cached_property
    def scale(self) -> Scale | None:
        """How pictures are scaled; `None` when nothing is drawn in color."""
        if self.record.degenerate or self.record.blank:
            return None
        if self.record.view is not None:
            return joint_scale(self.relevance, self.record.view.full, signed=self.record.signed)
        return scale_of(self.relevance, signed=self.record.signed, reference=self.record.reference)

    @property
    def window(self) -> tuple[float, float]:
        """Relevance that a viewer of the raw map is to show black, and white.

        From none, or from full strength against, to full strength. A map that is not drawn in
        color is shown up to 1, lest what rounding leaves of it looks like evidence.
        """
        full = 1.0 if self.scale is None else self.scale.full
        return -full if self.record.signed else 0.0, full

    @cached_property
    def picture(self) -> Rgb:
        """The image with the evidence and the legend, shape ``(rows, columns, 3)``.

        Of a volume, the slice on which the evidence peaks.
        """
        if self.record.volume is None:
            return draw(
                self._display,
                self.values,
                self.grid,
                self._words,
                self.scale,
                style=self.record.style,
                where=self._place,
                regions=self.record.regions,
            )
        return self.slice_picture(self.peak_slice)

    @property
    def peak_slice(self) -> int:
        """The volume's slice on which the evidence peaks, counted from 0; of a bag, the first."""
        if self.record.target.slice is not None:
            return self.record.target.slice - 1
        if self.record.instances:
            return slice_of(self.record.instances[0])
        if self.peak is None:
            return self.relevant_slices[0]
        return round(self.peak[0][0])

    @property
    def peak_image(self) -> Slice | None:
        """The volume's slice on which the evidence peaks; `None` of an image, or without a peak."""
        if self.record.volume is None or self.peak is None:
            return None
        return self.record.volume.slices[self.peak_slice]

    def slice_picture(self, number: int) -> Rgb:
        """One slice of a volume, counted from 0, with the evidence on it and the legend."""
        slices = self.shape[0]
        values, grid = self._laid.slice(number, slices)
        where = f"{self._called(number)}{self._rank(number)}"
        return draw(
            self._display[number],
            values,
            grid,
            self._words,
            self.scale,
            style=self.record.style,
            where=where,
            number=number,
            cell=self.grid.cell,
        )

    def _called(self, number: int) -> str:
        """Say which source image a slice is, and where it lies among all of them."""
        slices, own = self.shape[0], self._volume.slices[number]
        place = f"slice {number + 1:0{len(str(slices))}d} of {slices} by position."
        if own.instance_number is None:
            return place.capitalize()
        frame = "" if own.frame is None else f", frame {own.frame}"
        return f"Instance Number {own.instance_number}{frame}: {place}"

    def _on_source(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a map at every source pixel, shape ``(C, *shape)``; 0 outside of its regions."""
        if not self.record.regions:
            return resample.to_source(values, self.grid, self.shape)
        found = np.zeros((len(values), *self.shape), np.float32)
        for part in parts(self.grid, self.record.regions):
            into = found[:, *part.pixels]
            into[:] = resample.to_source(values[:, *part.cells], part.grid, into.shape[1:])
        return found

    def _rank(self, number: int) -> str:
        """Say what one instance of a bag adds; nothing of a slice that is none."""
        for rank, each in enumerate(self.record.instances, 1):
            if each.slice == number + 1:
                return f" {_fall(each, rank)}"
        return ""

    @property
    def _place(self) -> str | None:
        """Say which of several images it is, and its share; nothing of one image."""
        view, own = self.record.view, self.record.instance
        if view is None:
            return None
        name, what = legible(view.label, view.key), "view" if own is None else "image"
        if own is None:
            name = f"View {name}"
        if view.share is None:
            said = f"{name}: no {what} has evidence."
        else:
            how = "explained at once" if view.together else "each explained beside the others"
            said = f"{name}: {view.share:.0%} of the evidence in all {what}s, {how}."
        return said if own is None else f"{said} {_fall(own, self.record.instances.index(own) + 1)}"

    @property
    def _volume(self) -> Volume:
        volume = self.record.volume
        if volume is None:
            raise TypeError("a single image has no slices")
        return volume

    @cached_property
    def _laid(self) -> resample.Laid:
        return resample.Laid.of(self.values, self.grid)

    @cached_property
    def _display(self) -> NDArray[np.uint8]:
        return np.asarray(np.load(self.display_file, mmap_mode="r", allow_pickle=False))

    @cached_property
    def _words(self) -> Words:
        record = self.record
        return Words(
            target=record.target,
            method=record.method_title,
            sense=record.sense,
            model=record.model,
            checks=record.checks,
            trust=record.trust,
            parity=record.parity,
            given=record.given,
            variables=record.variables,
            degenerate=record.degenerate,
            restriction=record.restriction,
            seen_share=self.seen_share,
        )


def slice_of(share: InstanceShare) -> int:
    """Return which slice of its volume an instance is, counted from 0."""
    if share.slice is None:
        raise TypeError("a single image is no slice")
    return share.slice - 1


def _fall(share: InstanceShare, rank: int) -> str:
    """Say what one instance of a bag adds."""
    said = f"Without it the score falls by {share.relevance:.3g}: rank {rank}."
    if share.attention is not None:
        said += f" Attention (no attribution): {share.attention:.3g}."
    return said
