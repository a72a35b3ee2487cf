"""Series of known voxels in known places, and maps of them ready to be written."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from service.domain.grid import Grid
from service.domain.volume import Geometry, Slice, Steps, Volume
from tests.support.phantom_dicom import encoded, of_pixels
from tests.support.sheets import record
from workers.formats.sheet import Sheet
from workers.parcels import ImageFacts
from workers.volumes.assemble import TILT

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
SAGITTAL = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
INTERCEPT = -1024


@dataclass(frozen=True)
class Series:
    """A CT series as it would be sent: by default axial, 3 x 0.8 x 0.7 mm."""

    shape: tuple[int, int, int] = (12, 24, 20)
    orientation: tuple[float, float, float, float, float, float] = AXIAL
    spacing: tuple[float, float, float] = (3.0, 0.8, 0.7)
    """Along the normal, between rows, between columns, in mm."""

    tilt: float = 0.0
    """Degrees by which the way from slice to slice leans toward a column's direction."""

    origin: tuple[float, float, float] = (-40.0, 30.0, -700.0)
    offsets: tuple[float, ...] | None = None
    """Place of each slice along the normal in mm, where they are not equal steps."""

    elements: dict[str, Any] = field(default_factory=dict)
    """Elements of every slice that are to be other."""

    @property
    def affine(self) -> NDArray[np.float64]:
        """Voxel ``(slice, row, column, 1)`` to patient mm, spelled out from the parameters."""
        row, column = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        lean = np.tan(np.radians(self.tilt))
        affine = np.eye(4)
        affine[:3, 0] = self.spacing[0] * (np.cross(row, column) + lean * column)
        affine[:3, 1] = self.spacing[1] * column
        affine[:3, 2] = self.spacing[2] * row
        affine[:3, 3] = self.origin
        return affine

    @property
    def values(self) -> NDArray[np.float32]:
        """Hounsfield units, shape ``shape``: every voxel tells its own index."""
        index = np.indices(self.shape)
        return np.asarray(index[0] * 100 + index[1] * 3 + index[2] - 1000, np.float32)

    @property
    def stored(self) -> NDArray[np.uint16]:
        """Stored values, shape ``shape``."""
        return (self.values - INTERCEPT).astype(np.uint16)

    def position(self, number: int) -> tuple[float, float, float]:
        """Center of the first pixel of a slice, counted from 0."""
        step = self.affine[:3, 0]
        at = number if self.offsets is None else self.offsets[number] / self.spacing[0]
        x, y, z = (float(each) for each in np.array(self.origin) + at * step)
        return x, y, z

    def datasets(self) -> list[Dataset]:
        """The slices in order."""
        return [self.dataset(number) for number in range(self.shape[0])]

    def dataset(self, number: int, **changes: Any) -> Dataset:
        """One slice, counted from 0."""
        stored = self.stored[number]
        elements = {
            "SOPClassUID": CT,
            "SOPInstanceUID": f"2.25.10{number + 1}",
            "Modality": "CT",
            "ViewPosition": None,
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "FrameOfReferenceUID": "2.25.99",
            "PositionReferenceIndicator": "",
            "ImagePositionPatient": [f"{each:.6f}" for each in self.position(number)],
            "ImageOrientationPatient": [f"{each:.8g}" for each in self.orientation],
            "PixelSpacing": list(self.spacing[1:]),
            "SliceThickness": self.spacing[0],
            "InstanceNumber": number + 1,
            "RescaleSlope": 1,
            "RescaleIntercept": INTERCEPT,
        }
        made = of_pixels(stored, bits=12)
        for keyword, value in {**elements, **self.elements, **changes}.items():
            if value is None:
                made.pop(keyword, None)
            else:
                setattr(made, keyword, value)
        return made

    def files(self) -> list[bytes]:
        """The slices as Part 10 files, in order."""
        return [encoded(each) for each in self.datasets()]

    def volume(self) -> Volume:
        """What the series is as a volume, by its parameters alone."""
        return Volume(
            geometry=Geometry.SHEARED if self.tilt > TILT else Geometry.REGULAR,
            affine=self.affine.tolist(),
            rows=self.shape[1],
            columns=self.shape[2],
            slices=tuple(
                Slice(
                    sop_class_uid=CT,
                    sop_instance_uid=f"2.25.10{number + 1}",
                    position=self.position(number),
                    instance=f"in_{number + 1:04d}",
                    instance_number=number + 1,
                )
                for number in range(self.shape[0])
            ),
            series_instance_uid="2.25.2",
            frame_of_reference_uid="2.25.99",
            orientation=self.orientation,
            pixel_spacing=self.spacing[1:],
            thickness=self.spacing[0],
            steps=Steps(median=self.spacing[0], least=self.spacing[0], greatest=self.spacing[0]),
            tilt=self.tilt,
        )


def enhanced(series: Series) -> Dataset:
    """The series as one enhanced multi-frame object, its frames placed by functional groups."""
    slices = series.datasets()
    whole = series.dataset(0)
    whole.SOPClassUID = ENHANCED_CT
    whole.NumberOfFrames = len(slices)
    whole.PixelData = b"".join(each.PixelData for each in slices)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        del whole[keyword]
    for keyword in ("RescaleSlope", "RescaleIntercept", "SliceThickness"):
        del whole[keyword]
    shared = Dataset()
    shared.PlaneOrientationSequence = [_item(slices[0], "ImageOrientationPatient")]
    shared.PixelMeasuresSequence = [_item(slices[0], "PixelSpacing", "SliceThickness")]
    whole.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for each in slices:
        frame = Dataset()
        frame.PlanePositionSequence = [_item(each, "ImagePositionPatient")]
        frame.PixelValueTransformationSequence = [_item(each, "RescaleSlope", "RescaleIntercept")]
        frames.append(frame)
    whole.PerFrameFunctionalGroupsSequence = frames
    return whole


def _item(dataset: Dataset, *keywords: str) -> Dataset:
    item = Dataset()
    for keyword in keywords:
        item[keyword] = dataset[keyword]
    return item


def blob(shape: tuple[int, ...], *, signed: bool = False) -> NDArray[np.float32]:
    """A hill of evidence, and a hollow against it if signed; shape ``(1, *shape)``."""
    axes = np.meshgrid(*(np.linspace(0, 1, length) for length in shape), indexing="ij")
    hill = np.exp(-30 * sum((axis - 0.7) ** 2 for axis in axes))
    hollow = np.exp(-30 * sum((axis - 0.2) ** 2 for axis in axes))
    return np.asarray(hill - hollow * signed, np.float32)[None]


def volume_sheet(
    folder: Path,
    series: Series | None = None,
    values: NDArray[np.float32] | None = None,
    grid: Grid | None = None,
    **changes: Any,
) -> Sheet:
    """Lay a map over a series without running the line; `changes` are to the record.

    Parameters
    ----------
    folder
        Where the files go.
    series
        What is explained.
    values
        Shape ``(C, *grid.shape)``; by default a hill on 6 x 8 x 5 cells.
    grid
        Cells of the map in the source volume; by default they share it evenly.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series = series or Series()
    values = blob((6, 8, 5)) if values is None else values
    place = grid or Grid.partition(values.shape[1:], series.shape)
    display = np.clip((series.values + 1000) / 8, 0, 255).astype(np.uint8)
    np.save(folder / "map.npy", values)
    np.save(folder / "display.npy", display)
    (folder / "header.dcm").write_bytes(encoded(_without_pixels(series.dataset(0))))
    made = record(facts(series), place, **{"volume": series.volume(), **changes})
    return Sheet(made, folder / "map.npy", folder / "display.npy", folder / "header.dcm")


def facts(series: Series) -> ImageFacts:
    """What the decoder would tell of the series."""
    slices, rows, columns = series.shape
    return ImageFacts(
        rows=rows,
        columns=columns,
        slices=slices,
        channels=1,
        modality="CT",
        photometric_interpretation="MONOCHROME2",
        bits_stored=12,
        stored_minimum=0,
        stored_maximum=4095,
        value_minimum=float(INTERCEPT),
        value_maximum=float(4095 + INTERCEPT),
        lossy=False,
        window=(0.0, 2048.0),
    )


def _without_pixels(dataset: Dataset) -> Dataset:
    del dataset.PixelData
    return dataset
