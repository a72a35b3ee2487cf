"""What a code stream says wrongly, or otherwise than the header: codes of warnings."""

from service.dicom.header import Header
from service.dicom.photometric import COMPONENTS, PARTIAL
from service.dicom.syntaxes import FAMILIES, JPEG_COLOR, LOSSLESS_ONLY, SEQUENTIAL, Family
from workers.pixels.codecs import has_component_transform, said_transform, shows_loss
from workers.pixels.jpeg_markers import FRAME_MARKERS, START_OF_SCAN, jpeg_segments

CONTRADICTED = "contradicted_color_label"
"""Warning of color that is not what the header calls it."""

OTHER_PROCESS = "contradicted_transfer_syntax"
"""Warning of a code stream that is coded otherwise than the transfer syntax says."""

PROCESSES = {
    Family.JPEG_BASELINE: {0xC0},
    Family.JPEG_EXTENDED: {0xC0, 0xC1},
    Family.JPEG_LOSSLESS: {0xC3},
}
"""Frame markers of the processes that a transfer syntax names (PS3.5 A.4.1)."""


def doubts_of(code: bytes, header: Header) -> tuple[str, ...]:
    """Return codes of what a code stream says wrongly, or other than the header does."""
    family = FAMILIES[header.transfer_syntax_uid]
    found = []
    if family in SEQUENTIAL and _scan_is_illegal(code):
        found.append("illegal_jpeg_scan")
    if _is_coded_otherwise(code, header.transfer_syntax_uid):
        found.append(OTHER_PROCESS)
    if header.samples_per_pixel > 1 and _contradicts(code, family, header):
        found.append(CONTRADICTED)
    return tuple(found)


def _is_coded_otherwise(code: bytes, transfer_syntax_uid: str) -> bool:
    """Tell a JPEG of another process than is said, and loss where none is allowed."""
    family = FAMILIES[transfer_syntax_uid]
    if family in PROCESSES:
        return not PROCESSES[family] & {each for each, _ in jpeg_segments(code)}
    return transfer_syntax_uid in LOSSLESS_ONLY and shows_loss(code, family)


def _scan_is_illegal(code: bytes) -> bool:
    """Tell a sequential JPEG whose scan header names no 0, 63, 0 (ISO 10918-1 B.2.3).

    Some writers put zeros there; libjpeg-turbo reads on, as if it were right.
    """
    for marker, segment in jpeg_segments(code):
        if marker in FRAME_MARKERS and marker not in {0xC0, 0xC1}:
            return False
        if marker == START_OF_SCAN:
            return segment[-3:] != b"\x00\x3f\x00"
    return False


def _contradicts(code: bytes, family: Family, header: Header) -> bool:
    """Tell whether a code stream cannot have, or says not to have, the header's color."""
    label = header.photometric_interpretation
    if family in {Family.JPEG_2000, Family.HTJ2K}:
        return has_component_transform(code) != (label in COMPONENTS)
    if label in COMPONENTS | PARTIAL:
        return True
    if family not in JPEG_COLOR:
        return False
    said = said_transform(code)
    return said is not None and said != (label != "RGB")
