"""A zip archive of DICOM objects."""

from typing import ClassVar

from typing_extensions import override

from api.intake.base import INTAKES, FileSink, Intake, Received, Room, Sink, entries_of
from service.settings import LimitSettings


@INTAKES.register("archive")
class Archive(Intake):
    """``application/zip``: entries are inflated one after the other, and counted."""

    media_type: ClassVar = "application/zip"

    @override
    def open(self, content_type: str, room: Room, limits: LimitSettings) -> Sink:
        return _ArchiveSink(room, limits)


class _ArchiveSink(FileSink):
    """Writes the archive into a file and opens it there."""

    def __init__(self, room: Room, limits: LimitSettings) -> None:
        super().__init__(room)
        self._limits = limits

    @override
    def end(self) -> Received:
        self.close()
        return Received(entries_of(self.path, 1, self.room, self._limits))
