"""Every transfer syntax that the standard knows is decoded, or refused by its name."""

from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom.uid import UID, UID_dictionary

from service.dicom.header import read_header
from service.dicom.syntaxes import _NEWER, FAMILIES, IMPLICIT_LITTLE, LOSSLESS_ONLY, Family
from service.errors.studies import UnsupportedTransferSyntax
from tests.support.phantom_dicom import (
    DEFLATED,
    EXPLICIT_BIG,
    compress,
    compressed,
    encoded,
    image,
    of_pixels,
)
from workers.pixels.codecs import _DECODERS
from workers.pixels.decode import decode_file

SLOPE = (np.add.outer(np.arange(64), np.arange(48)) * 30).astype(np.uint16)
"""Twelve bits, smooth, so that lossy codecs lose little of it."""

KNOWN = {uid for uid, about in UID_dictionary.items() if about[1] == "Transfer Syntax"}
ENCODERS: dict[str, Any] = {
    "1.2.840.10008.1.2.4.51": lambda p: imagecodecs.jpeg8_encode(p, level=95, bitspersample=12),
    "1.2.840.10008.1.2.4.57": lambda p: imagecodecs.jpeg8_encode(p, lossless=True, predictor=4),
    "1.2.840.10008.1.2.4.81": lambda p: imagecodecs.jpegls_encode(p, level=2),
    "1.2.840.10008.1.2.4.91": lambda p: imagecodecs.jpeg2k_encode(
        p, level=80, reversible=False, codecformat="j2k"
    ),
    "1.2.840.10008.1.2.4.202": lambda p: imagecodecs.htj2k_encode(p, reversible=True),
    "1.2.840.10008.1.2.4.203": lambda p: imagecodecs.htj2k_encode(p, level=0.001),
}
"""Code streams of the syntaxes that other tests have none of."""

OFF = {
    "1.2.840.10008.1.2.4.50": 3,
    "1.2.840.10008.1.2.4.51": 8,
    "1.2.840.10008.1.2.4.81": 2,
    "1.2.840.10008.1.2.4.91": 40,
    "1.2.840.10008.1.2.4.203": 40,
}
"""Gray levels by which a lossy code stream may be off, as it was encoded here."""


def written(pixels, syntax: str) -> bytes:
    """The bytes of an image in a transfer syntax."""
    ds = of_pixels(pixels, bits=8 if pixels.dtype == np.uint8 else 12)
    if syntax == EXPLICIT_BIG:
        ds.PixelData = pixels.astype(">u2").tobytes()
    if FAMILIES[syntax] is Family.NATIVE:
        return encoded(ds, syntax)
    encode = ENCODERS.get(syntax, lambda each: compress(each, syntax))
    return compressed(ds, syntax, bytes(encode(pixels)))


@pytest.mark.parametrize("syntax", FAMILIES)
def test_every_syntax_that_is_read_gives_its_pixels(tmp_path, syntax):
    pixels = (SLOPE >> 4).astype(np.uint8) if syntax.endswith(".4.50") else SLOPE
    file = tmp_path / "image.dcm"
    file.write_bytes(written(pixels, syntax))
    assert read_header(file, max_samples=1 << 20).transfer_syntax_uid == syntax
    values = np.load(decode_file(file, tmp_path).pixels)[0].astype(float)
    assert np.abs(values - pixels).max() <= OFF.get(syntax, 0)


def test_what_is_lossless_is_told_and_what_decodes_is_pinned():
    native = {IMPLICIT_LITTLE, UID("1.2.840.10008.1.2.1"), DEFLATED, EXPLICIT_BIG}
    assert set(FAMILIES) - native == LOSSLESS_ONLY | set(OFF)
    assert set(_DECODERS) == set(Family) - {Family.NATIVE}


@pytest.mark.parametrize("syntax", sorted((KNOWN | set(_NEWER)) - set(FAMILIES)))
def test_every_other_syntax_is_refused_by_its_name(tmp_path, syntax):
    as_if = "1.2.840.10008.1.2.4.203"
    data = compressed(image(), as_if, b"\xff\xd8\xff\xd9")
    known = as_if.encode().ljust(24, b"\0")
    assert data.count(known) == 1
    name = syntax.encode()
    length = len(name) + len(name) % 2
    head = data.index(known)
    told = name.ljust(length, b"\0")
    meta = int.from_bytes(data[140:144], "little") + length - 24
    data = data[:140] + meta.to_bytes(4, "little") + data[144 : head - 2]
    rest = compressed(image(), as_if, b"\xff\xd8\xff\xd9")[head + 24 :]
    file = tmp_path / "image.dcm"
    file.write_bytes(data + length.to_bytes(2, "little") + told + rest)
    with pytest.raises(UnsupportedTransferSyntax) as refusal:
        read_header(file, max_samples=1 << 20)
    assert refusal.value.facts == {"transfer_syntax": _NEWER.get(syntax, UID(syntax).name)}


def test_a_twelve_bit_jpeg_with_a_scan_of_zeros_is_read_as_if_it_were_right(tmp_path):
    syntax = "1.2.840.10008.1.2.4.51"
    code = bytes(ENCODERS[syntax](SLOPE))
    at = code.index(b"\xff\xda")
    end = at + 2 + int.from_bytes(code[at + 2 : at + 4], "big")
    assert code[end - 3 : end] == b"\x00\x3f\x00"
    found = []
    for scan in (b"\x00\x3f\x00", bytes(3)):
        file = tmp_path / "image.dcm"
        ds = of_pixels(SLOPE, bits=12)
        file.write_bytes(compressed(ds, syntax, code[: end - 3] + scan + code[end:]))
        files = decode_file(file, tmp_path)
        found.append((np.load(files.pixels), "illegal_jpeg_scan" in files.facts.warnings))
    (right, doubted), (repaired, told) = found
    assert np.array_equal(right, repaired)
    assert (doubted, told) == (False, True)
