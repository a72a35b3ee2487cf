"""One DICOM object as the body."""

from typing import ClassVar

from typing_extensions import override

from api.intake.base import INTAKES, FileSink, Intake, Room, Sink
from service.settings import LimitSettings


@INTAKES.register("raw")
class Raw(Intake):
    """``application/dicom``: one DICOM object as the body."""

    media_type: ClassVar = "application/dicom"

    @override
    def open(self, content_type: str, room: Room, limits: LimitSettings) -> Sink:
        return FileSink(room)
