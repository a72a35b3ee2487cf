"""Whatever the header holds, every object that comes out of it is valid.

Valid is what another implementation of the value representations says, not
ours: pydicom's validators, which stay silent while headers are read; and its
dictionary, of how many values an element may have.
"""

import io
from pathlib import Path

import pydicom
from hypothesis import given
from hypothesis import strategies as st
from pydicom import config
from pydicom.datadict import dictionary_VM
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.valuerep import validate_value

from tests.support.hostile_headers import HEADERS, PLANE, SECRET, hostile, tried
from tests.support.sheets import blob, sheet
from workers.formats.base import FORMATS
from workers.sheets import write

DICOM = [name for name in FORMATS if FORMATS[name].media_type == "application/dicom"]
DOCUMENTS = ["dicom_ko", "dicom_sr"]
"""They take most of the time, so one of them is made of each header."""

IMAGES = [name for name in DICOM if name not in DOCUMENTS]


def invalid(ds: Dataset) -> list[str]:
    """Elements, at any depth, that pydicom's validators or dictionary refuse."""
    found = []

    def look(_: Dataset, element: DataElement) -> None:
        least, _, most = dictionary_VM(element.tag).partition("-")
        few = "n" in most or int(most or least) >= element.VM
        if element.VM and not (few and int(least) <= element.VM):
            found.append(f"{element.keyword}: {element.VM} values")
        if element.VR in ("SQ", "OB", "OW", "OF", "US", "UL", "FD", "FL", "AT"):
            return
        several = element.value if element.VM > 1 else [element.value]
        for value in several:
            try:
                validate_value(element.VR, value if value is None else str(value), config.RAISE)
            except ValueError as error:
                found.append(f"{element.keyword}: {error}")

    ds.walk(look)
    return found


@tried(40)
@given(header=HEADERS, placed=st.booleans(), document=st.sampled_from(DOCUMENTS))
def test_every_object_of_every_header_is_valid(tmp_path: Path, header, placed, document):
    path = tmp_path / "source.dcm"
    path.write_bytes(hostile({**(PLANE if placed else {}), **header}))
    drawn = sheet(path, tmp_path / "work", blob((3, 3)))
    files, omitted = write(drawn, [*IMAGES, document, "json", "npz", "nifti"], tmp_path)
    assert {each.format for each in omitted} <= {"dicom_pm"}
    for artifact, file in files:
        data = file.read_bytes()
        assert SECRET not in data
        if artifact.media_type == "application/dicom":
            assert invalid(pydicom.dcmread(io.BytesIO(data))) == []
