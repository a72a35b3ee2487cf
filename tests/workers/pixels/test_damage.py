"""Damaged code streams in real slots: whatever a codec does, one call fails."""

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from service.dicom.damage import is_damage
from service.errors.base import WhylightError
from service.errors.studies import UndecodablePixels, UnsupportedImage
from tests.support.phantom_dicom import (
    JPEG_BASELINE,
    JPEG_EXTENDED,
    LOSSLESS,
    RLE,
    compress,
    compressed,
    encoded,
    of_pixels,
)
from workers.formats.dicom_sc import stacked
from workers.pixels import decode
from workers.slots import Slots

SMOOTH = (np.add.outer(np.arange(96), np.arange(80)) * 20).astype(np.uint16)


CODES = {
    **{syntax: (SMOOTH, compress(SMOOTH, syntax)) for syntax in LOSSLESS},
    JPEG_BASELINE: (
        (SMOOTH >> 4).astype(np.uint8),
        compress((SMOOTH >> 4).astype(np.uint8), JPEG_BASELINE),
    ),
    JPEG_EXTENDED: (SMOOTH, bytes(imagecodecs.jpeg8_encode(SMOOTH, bitspersample=12))),
}
"""An image and its code stream, by syntax."""


@pytest.fixture(scope="module")
def slots():
    with Slots(1, address_space_bytes=3 << 30) as slots:
        yield slots


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_random_damage_is_decoded_or_refused_and_nothing_else(slots, tmp_path, syntax):
    code = compress(SMOOTH, syntax)
    random = np.random.default_rng(7)
    outcomes = set()
    for _ in range(40):
        hurt = np.frombuffer(code, np.uint8).copy()
        where = random.integers(0, len(hurt), random.integers(1, 8))
        hurt[where] = random.integers(0, 256, len(where))
        file = tmp_path / "hurt.dcm"
        file.write_bytes(compressed(of_pixels(SMOOTH), syntax, hurt.tobytes()))
        outcomes.add(outcome(slots, file))
    assert "undecodable_pixels" in outcomes
    assert outcomes <= {"undecodable_pixels", "decoded"}


def outcome(slots: Slots, file: Path) -> str:
    message = {"file": str(file), "scratch": str(file.parent), "max_samples": 1 << 20}
    try:
        slots.run("decode", message, 20, lost=UndecodablePixels)
    except WhylightError as refusal:
        return refusal.failure().code
    return "decoded"


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("syntax", CODES)
def test_a_code_stream_that_is_cut_short_is_never_shown_as_a_whole_image(tmp_path, syntax, kept):
    pixels, code = CODES[syntax]
    file = tmp_path / "cut.dcm"
    file.write_bytes(compressed(of_pixels(pixels), syntax, code[: int(len(code) * kept)]))
    with pytest.raises(UndecodablePixels):
        decode.decode_file(file, tmp_path)


@pytest.mark.parametrize("kept", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("syntax", CODES)
def test_an_end_marker_does_not_make_a_code_stream_whole(tmp_path, syntax, kept):
    pixels, code = CODES[syntax]
    file = tmp_path / "ended.dcm"
    ended = code[: int(len(code) * kept)].rstrip(b"\xff") + b"\xff\xd9"
    file.write_bytes(compressed(of_pixels(pixels), syntax, ended))
    with pytest.raises(UndecodablePixels):
        decode.decode_file(file, tmp_path)


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.99])
@pytest.mark.parametrize("told", [True, False], ids=["as long as it is", "up to the end"])
@pytest.mark.parametrize("syntax", LOSSLESS[3:])
def test_a_tile_part_that_is_cut_short_is_refused_whatever_length_it_names(
    tmp_path, syntax, told, kept
):
    pixels, code = CODES[syntax]
    file, at = tmp_path / "ended.dcm", code.index(b"\xff\x90")
    data = at + 14  # behind the tile-part's header
    for stop in (len(code) - 2, data + int((len(code) - 2 - data) * kept)):
        length = (stop - at) * told
        named = code[: at + 6] + length.to_bytes(4, "big") + code[at + 10 : stop] + b"\xff\xd9"
        file.write_bytes(compressed(of_pixels(pixels), syntax, named))
        if stop == len(code) - 2:
            decode.decode_file(file, tmp_path)
            assert np.array_equal(np.load(tmp_path / "pixels.npy")[0], pixels)
        else:
            with pytest.raises(UndecodablePixels):
                decode.decode_file(file, tmp_path)


@pytest.mark.parametrize("syntax", CODES)
@pytest.mark.parametrize("zeros", [1, 2, 10, 16])
def test_padding_behind_a_whole_code_stream_is_passed_over(tmp_path, syntax, zeros):
    pixels, code = CODES[syntax]
    file, scratch = tmp_path / "padded.dcm", tmp_path
    file.write_bytes(compressed(of_pixels(pixels), syntax, code))
    whole = np.load(decode.decode_file(file, scratch).pixels)
    file.write_bytes(compressed(of_pixels(pixels), syntax, code + bytes(zeros)))
    assert np.array_equal(np.load(decode.decode_file(file, scratch).pixels), whole)


def test_an_rle_segment_that_overflows_its_plane_is_refused(tmp_path):
    file = tmp_path / "longer.dcm"
    file.write_bytes(compressed(of_pixels(SMOOTH), RLE, compress(SMOOTH, RLE) + b"\x01\x05\x05"))
    with pytest.raises(UndecodablePixels):
        decode.decode_file(file, tmp_path)


@pytest.mark.parametrize("syntax", [each for each in LOSSLESS if not each.endswith(".5")])
def test_a_code_stream_that_claims_a_huge_size_is_refused_before_it_gets_room(
    slots, tmp_path, syntax
):
    code = bytearray(compress(SMOOTH, syntax))
    if syntax in LOSSLESS[3:]:  # JPEG 2000's Xsiz, Ysiz
        code[8:16] = (60_000).to_bytes(4, "big") * 2
    else:
        frame = next(
            i for i in range(2, len(code)) if code[i] == 0xFF and code[i + 1] in {0xC3, 0xF7}
        )
        code[frame + 5 : frame + 9] = (60_000).to_bytes(2, "big") * 2
    file = tmp_path / "huge.dcm"
    file.write_bytes(compressed(of_pixels(SMOOTH), syntax, bytes(code)))
    message = {"file": str(file), "scratch": str(tmp_path), "max_samples": 1 << 20}
    with pytest.raises(WhylightError) as refusal:
        slots.run("decode", message, 20)
    assert "another size" in refusal.value.detail


def test_a_bug_of_ours_is_not_told_as_damaged_pixels(tmp_path, monkeypatch):
    file = tmp_path / "fine.dcm"
    file.write_bytes(encoded(of_pixels(SMOOTH)))
    monkeypatch.setattr(decode, "read_stored", lambda *_: None)
    with pytest.raises(AttributeError):
        decode.decode_file(file, tmp_path)


def test_what_a_library_gives_up_on_is_damage():
    with pytest.raises(KeyError) as missing:
        Dataset()["PatientName"]
    assert is_damage(missing.value)
    assert is_damage(OSError("No tag to read at file position 991"))  # so says pydicom


def test_what_comes_out_of_our_own_code_is_no_damage(tmp_path):
    with pytest.raises(ValueError, match="broadcast") as bug:
        stacked([np.zeros((2, columns, 3), np.uint8) for columns in (4, 5)])
    assert not is_damage(bug.value)
    with pytest.raises(FileNotFoundError) as gone:
        decode.decode_file(tmp_path / "gone.dcm", tmp_path)
    assert not is_damage(gone.value)


@pytest.mark.parametrize("marker", [b"\xff\xd9", b"\xff\xd2", b"\xff\xc1", b"\xff\x01"])
@pytest.mark.parametrize("syntax", [JPEG_BASELINE, JPEG_EXTENDED, *LOSSLESS[1:2]])
def test_a_marker_in_the_midst_of_a_jpeg_is_refused(tmp_path, syntax, marker):
    pixels, code = CODES[syntax]
    middle = code.index(b"\xff\xda") + len(code) // 2
    hurt = code[:middle] + marker + code[middle + len(marker) :]
    file = tmp_path / "hurt.dcm"
    file.write_bytes(compressed(of_pixels(pixels), syntax, hurt))
    with pytest.raises(UndecodablePixels):
        decode.decode_file(file, tmp_path)


def test_restart_markers_must_count_up(tmp_path):
    pixels, _ = CODES[JPEG_BASELINE]
    into, file = io.BytesIO(), tmp_path / "intervals.dcm"
    Image.fromarray(pixels).save(into, "JPEG", quality=95, restart_marker_rows=1)
    code = into.getvalue()
    file.write_bytes(compressed(of_pixels(pixels), JPEG_BASELINE, code))
    decode.decode_file(file, tmp_path)
    lost = code.replace(b"\xff\xd2", b"\xff\xd4")
    assert lost != code
    file.write_bytes(compressed(of_pixels(pixels), JPEG_BASELINE, lost))
    with pytest.raises(UndecodablePixels):
        decode.decode_file(file, tmp_path)


@pytest.mark.parametrize("syntax", [JPEG_EXTENDED, *LOSSLESS[3:4]])
def test_a_code_stream_that_is_deeper_than_the_header_says_is_refused(tmp_path, syntax):
    _, code = CODES[syntax]
    file = tmp_path / "deeper.dcm"
    file.write_bytes(compressed(of_pixels(SMOOTH.astype(np.uint8)), syntax, code))
    with pytest.raises(UndecodablePixels, match="depth"):
        decode.decode_file(file, tmp_path)


def test_an_rle_header_that_is_cut_short_is_refused(tmp_path):
    file = tmp_path / "headless.dcm"
    file.write_bytes(compressed(of_pixels(SMOOTH), RLE, compress(SMOOTH, RLE)[:18]))
    with pytest.raises(UndecodablePixels):
        decode.decode_file(file, tmp_path)


@pytest.mark.parametrize(
    "keyword",
    ["ModalityLUTSequence", "VOILUTSequence", "SequenceOfUltrasoundRegions", "PatientWeight"],
)
def test_an_element_that_is_not_of_its_kind_says_nothing(tmp_path, keyword):
    image = of_pixels(SMOOTH)
    image.add_new(tag_for_keyword(keyword), "UL", 5)
    file = tmp_path / "odd.dcm"
    file.write_bytes(encoded(image))
    decode.decode_file(file, tmp_path)
    assert np.array_equal(np.load(tmp_path / "pixels.npy")[0], SMOOTH.astype(np.float32))


@pytest.mark.parametrize("slope", ["two", "nan", "1e999"])
def test_a_rescale_that_is_no_number_is_refused(tmp_path, slope):
    image = of_pixels(SMOOTH, RescaleIntercept="0")
    image.add_new("RescaleSlope", "LO", slope)
    file = tmp_path / "odd.dcm"
    file.write_bytes(encoded(image))
    with pytest.raises(UnsupportedImage, match="rescale"):
        decode.decode_file(file, tmp_path)
