"""Bodies of several parts: a form with files, as browsers send it; objects, as STOW-RS has them."""

from collections.abc import Iterator
from typing import BinaryIO, ClassVar, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from typing_extensions import override

from api.intake.base import (
    INTAKES,
    Intake,
    Received,
    Room,
    Sink,
    entries_of,
    is_archive,
    parse_json,
)
from service.errors.requests import InvalidRequest, MalformedBody, TooLarge, UnsupportedMediaType
from service.settings import LimitSettings
from service.studies import Part

DICOM: Final = "application/dicom"
FILE: Final = "file"
REQUEST: Final = "request"
HEADERS: Final = 16
HEADER_BYTES: Final = 4096


@INTAKES.register("multipart")
class Multipart(Intake):
    """``multipart/form-data``: parts named ``file`` (DICOM or zip), and ``request`` (JSON)."""

    media_type: ClassVar = "multipart/form-data"

    @override
    def open(self, content_type: str, room: Room, limits: LimitSettings) -> Sink:
        return _Form(_boundary(content_type), room, limits)


@INTAKES.register("related")
class Related(Intake):
    """``multipart/related; type="application/dicom"``: each part an object (PS3.18, 8.6.1.2)."""

    media_type: ClassVar = "multipart/related"

    @override
    def open(self, content_type: str, room: Room, limits: LimitSettings) -> Sink:
        _, options = parse_options_header(content_type)
        if options.get(b"type", b"").decode("ascii", "replace").lower() != DICOM:
            raise UnsupportedMediaType(
                f'The parts of a multipart/related body are objects: say type="{DICOM}".',
                supported=[f'multipart/related; type="{DICOM}"'],
            )
        return _Objects(_boundary(content_type), room, limits)


def _boundary(content_type: str) -> bytes:
    """Return what parts the body."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:  # noqa: PLR2004 - RFC 2046, section 5.1.1
        raise MalformedBody("The Content-Type names no valid boundary.")
    return boundary


class _Form(Sink):
    """Takes a form apart as it comes; file names are never looked at."""

    _kind = Multipart.media_type

    def __init__(self, boundary: bytes, room: Room, limits: LimitSettings) -> None:
        self._room = room
        self._limits = limits
        self._parts: list[Part] = []
        self._request: bytearray | None = None
        self._number = 0
        self._field = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._file: BinaryIO | None = None
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_field,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header,
                "on_headers_finished": self._on_headers,
                "on_part_data": self._on_data,
                "on_part_end": self.close,
                "on_end": self._on_end,
            },
            max_header_count=HEADERS,
            max_header_size=HEADER_BYTES,
        )

    @override
    def write(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except FormParserError:
            raise MalformedBody(f"The body is not valid {self._kind}.") from None

    @override
    def end(self) -> Received:
        if not self._ended:
            raise MalformedBody("The multipart body ends before its closing boundary.")
        document = None if self._request is None else parse_json(bytes(self._request))
        return Received(self._objects(), document)

    @override
    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _objects(self) -> Iterator[Part]:
        """Iterate over the files sent, and over the entries of those that are archives."""
        number = 1
        for part in self._parts:
            if not is_archive(part.file):
                yield Part(number, part.file)
                number += 1
                continue
            for entry in entries_of(part.file, number, self._room, self._limits):
                yield entry
                number = entry.number + 1

    # ------------------------------------------------------- what the parser says

    def _begin(self) -> None:
        self._number += 1
        self._headers.clear()
        self._field = self._value = b""

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("ascii", "replace")
        if name == FILE:
            self._open_file()
        elif name == REQUEST and self._request is None:
            self._request = bytearray()
        else:
            raise InvalidRequest(
                "A form has parts named 'file', any number of them, and at most one 'request'.",
                part=self._number,
            )

    def _open_file(self) -> None:
        if len(self._parts) == self._limits.instances:
            raise TooLarge(
                "The upload has more objects than allowed.", limit=self._limits.instances
            )
        path = self._room.new()
        self._file = path.open("wb")
        self._parts.append(Part(len(self._parts) + 1, path))

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._room.claim(end - start)
            self._file.write(data[start:end])
            return
        request = self._request
        if request is None:
            return
        request += data[start:end]
        if len(request) > self._limits.json_bytes:
            raise TooLarge(
                "The part 'request' is larger than allowed.", limit=self._limits.json_bytes
            )

    def _on_end(self) -> None:
        self._ended = True


class _Objects(_Form):
    """Takes objects apart; each part is one, whatever it says of its place."""

    _kind = Related.media_type

    @override
    def _on_headers(self) -> None:
        kind, _ = parse_options_header(self._headers.get(b"content-type", DICOM.encode()))
        if kind.lower() != DICOM.encode():
            raise InvalidRequest(
                f"Each part of a multipart/related body is '{DICOM}'; send other kinds apart.",
                part=self._number,
            )
        self._open_file()
