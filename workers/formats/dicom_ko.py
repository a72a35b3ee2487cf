"""A Key Object Selection: the source images to look at first."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from typing_extensions import override

from service.errors.studies import FormatNotApplicable
from workers.formats.base import FORMATS, Format
from workers.formats.derived import Source, derive, digest, finish
from workers.formats.enhanced import adopt, documented, named, ourselves, strip
from workers.formats.scheme import plain
from workers.formats.sheet import Sheet

KEY_OBJECTS: Final = "1.2.840.10008.5.1.4.1.1.88.59"


@FORMATS.register("dicom_ko")
class DicomKo(Format):
    """The fewest slices of a volume that hold half of its evidence, as a selection (TID 2010).

    Ten at most; they are titled "Of Interest". Frames of an object that has several are named by
    number. Of a single image it is that image, or its frame; of a bag of images, of those alone
    without which the score falls most.
    """

    title = "Most relevant images as DICOM Key Object Selection"
    media_type = "application/dicom"
    extension = "ko.dcm"

    @override
    def write(self, sheet: Sheet, to: Path) -> None:
        source, record = Source.read(sheet.header_file), sheet.record
        if record.instance is not None and record.instance not in record.helping:
            raise FormatNotApplicable(
                "Without this image of the bag the score falls little or not at all: it is no key"
                " image. 'instances' tells of every image.",
                reason="not_relevant",
                alternatives=["dicom_sc", "json"],
            )
        ds = derive(source, record, KEY_OBJECTS, self.name, title="AI key images", place=6)
        strip(ds)
        slices = None if record.volume is None else sheet.key_slices
        seen = documented(source, ds, sheet, slices)
        content = _content(sheet, seen.images)
        finish(ds, sheet, self.name, digest(content[0].to_json().encode()))
        document = KeyObjectSelectionDocument(seen.images, content, **named(ds))
        adopt(document, ds, seen).save_as(to, enforce_file_format=True)


def _content(sheet: Sheet, images: Sequence[Dataset]) -> KeyObjectSelection:
    record = sheet.record
    what = "the slices" if record.volume is not None else "the image"
    if record.instance is not None:
        what = "one of the images"
    model = f"{record.model.name}@{record.model.version}"
    said = f"{what} with the most relevance for {model}. Research use only. Not for diagnosis."
    about = plain(f"{record.method_title} for {record.target.label}")
    return KeyObjectSelection(
        codes.DCM.OfInterest,
        images,
        observer_device_context=ourselves(record),
        description=f"{record.mark}{about}: {said}",
    )
