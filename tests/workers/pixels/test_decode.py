import io
import subprocess

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.pixels import apply_rescale
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from service.errors.base import WhylightError
from service.errors.studies import TruncatedDicom, UndecodablePixels, UnsupportedImage
from tests.support.phantom_dicom import (
    DEFLATED,
    EXPLICIT_BIG,
    HTJ2K,
    JPEG_2000,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LS,
    LOSSLESS,
    RLE,
    compress,
    compressed,
    encoded,
    image,
    misnamed,
    noise,
    of_pixels,
)
from tests.support.programs import needs

IMPLICIT = "1.2.840.10008.1.2"
RAMP = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)


@pytest.mark.parametrize("syntax", [None, IMPLICIT])
@pytest.mark.parametrize(
    "pixels",
    [
        noise(np.uint8, 8),
        noise(np.uint16, 16),
        noise(np.int16, 16, signed=True),
        noise(np.int32, 24, signed=True),
    ],
    ids=lambda pixels: str(pixels.dtype),
)
def test_uncompressed_pixels_come_as_they_were_stored(decode, pixels, syntax):
    facts, values, _, padding = decode(encoded(of_pixels(pixels), *([syntax] if syntax else [])))
    assert np.array_equal(values[0], pixels)
    assert values.dtype == (pixels.dtype if pixels.dtype.itemsize <= 2 else np.float32)
    assert (facts.rows, facts.columns, facts.channels) == (64, 48, 1)
    assert padding is None


@pytest.mark.parametrize("signed", [True, False])
def test_pixels_of_32_bits_come_as_near_as_float32_holds_them(decode, signed):
    pixels = noise(np.int32 if signed else np.uint32, 32, signed=signed)
    _, values, display, _ = decode(encoded(of_pixels(pixels)))
    assert np.array_equal(values[0], pixels.astype(np.float32))
    assert display.min() == 0
    assert display.max() == 255


@pytest.mark.parametrize(
    ("least", "bits"), [(0, 8), (-128, 8), (0, 6), (-32, 6)], ids=lambda each: f"{each}"
)
def test_images_of_8_bits_without_a_window_are_shown_in_full(decode, least, bits):
    """Every gray that can be stored has its own brightness, the least is black."""
    every = np.arange(least, least + (1 << bits)).astype(np.int8 if least else np.uint8)
    pixels = np.tile(every, (4, 1))
    _, _, display, _ = decode(encoded(of_pixels(pixels, bits=bits)))
    expected = np.arange(1 << bits) * 255 / ((1 << bits) - 1)
    assert np.abs(display[0] - expected).max() <= 0.5
    assert [display.min(), display.max()] == [0, 255]


def test_overlays_are_no_pixels_wherever_they_lie(decode):
    """Planes of their own, and bits above the stored ones, as retired objects have them."""
    clean = decode(encoded(of_pixels(RAMP, bits=12)))
    drawn = of_pixels(RAMP | 0x8000 * (RAMP % 2 == 0).astype(np.uint16), bits=12)
    drawn.add_new(0x60000010, "US", RAMP.shape[0])
    drawn.add_new(0x60000011, "US", RAMP.shape[1])
    drawn.add_new(0x60000040, "CS", "G")
    drawn.add_new(0x60000050, "SS", [1, 1])
    drawn.add_new(0x60000100, "US", 1)
    drawn.add_new(0x60000102, "US", 0)
    drawn.add_new(0x60003000, "OW", b"\xff" * (RAMP.size // 8))
    drawn.add_new(0x60020102, "US", 15)
    drawn.add_new(0x60020100, "US", 16)
    found = decode(encoded(drawn))
    assert np.array_equal(found[1], clean[1])
    assert np.array_equal(found[2], clean[2])


@pytest.mark.parametrize("implicit", [True, False])
def test_an_object_without_meta_information_is_read_and_marked(decode, implicit):
    pixels = noise(np.uint16, 16)
    bare = io.BytesIO()
    dcmwrite(bare, of_pixels(pixels), implicit_vr=implicit, little_endian=True)
    assert bare.getvalue()[128:132] != b"DICM"
    facts, values, _, _ = decode(bare.getvalue())
    assert np.array_equal(values[0], pixels)
    assert "guessed_transfer_syntax" in facts.warnings
    assert "guessed_transfer_syntax" not in decode(encoded(of_pixels(pixels)))[0].warnings


@pytest.mark.parametrize(
    ("real", "said"),
    [
        (IMPLICIT, ExplicitVRLittleEndian),
        (ExplicitVRLittleEndian, IMPLICIT),
        (IMPLICIT, DEFLATED),
    ],
)
def test_elements_with_a_vr_or_without_are_read_as_they_are_and_not_as_declared(decode, real, said):
    pixels = noise(np.uint16, 12)
    right = encoded(of_pixels(pixels, bits=12), real)
    facts, values, _, _ = decode(misnamed(right, said))
    assert np.array_equal(values[0], pixels)
    assert "contradicted_encoding" in facts.warnings
    assert "contradicted_encoding" not in decode(right)[0].warnings


@pytest.mark.parametrize(
    ("real", "said"),
    [
        (ExplicitVRLittleEndian, EXPLICIT_BIG),
        (IMPLICIT, EXPLICIT_BIG),
        (EXPLICIT_BIG, ExplicitVRLittleEndian),
        (EXPLICIT_BIG, IMPLICIT),
        (DEFLATED, ExplicitVRLittleEndian),
        (ExplicitVRLittleEndian, JPEG_LS),
    ],
)
def test_another_byte_order_or_compression_than_is_declared_is_refused(decode, real, said):
    with pytest.raises(TruncatedDicom):
        decode(misnamed(encoded(image(), real), said))


def test_big_endian_words_and_bytes_are_swapped(decode):
    words = of_pixels(noise(np.uint16, 16))
    stored = np.frombuffer(words.PixelData, "<u2")
    words.PixelData = stored.astype(">u2").tobytes()
    words["PixelData"].VR = "OW"
    assert np.array_equal(decode(encoded(words, EXPLICIT_BIG))[1].ravel(), stored)
    octets = of_pixels(noise(np.uint8, 8))
    expected = np.frombuffer(octets.PixelData, np.uint8)
    octets.PixelData = np.frombuffer(octets.PixelData, "<u2").astype(">u2").tobytes()
    octets["PixelData"].VR = "OW"
    assert np.array_equal(decode(encoded(octets, EXPLICIT_BIG))[1].ravel(), expected)


def test_a_deflated_object_is_read(decode):
    pixels = noise(np.uint16, 12)
    assert np.array_equal(decode(encoded(of_pixels(pixels, bits=12), DEFLATED))[1][0], pixels)


@pytest.mark.parametrize("syntax", LOSSLESS)
@pytest.mark.parametrize(
    "pixels", [noise(np.uint8, 8), noise(np.uint16, 16)], ids=lambda pixels: str(pixels.dtype)
)
def test_lossless_compression_changes_nothing(decode, pixels, syntax):
    facts, values, _, _ = decode(compressed(of_pixels(pixels), syntax, compress(pixels, syntax)))
    assert np.array_equal(values[0], pixels)
    assert not facts.lossy


@pytest.mark.parametrize("syntax", [s for s in LOSSLESS if s not in {HTJ2K, JPEG_2000}])
def test_signed_pixels_keep_their_sign_in_unsigned_code_streams(decode, syntax):
    pixels = noise(np.int16, 12, signed=True)
    code = compress(pixels.view(np.uint16) & 0x0FFF, syntax)
    assert np.array_equal(
        decode(compressed(of_pixels(pixels, bits=12), syntax, code))[1][0], pixels
    )


def test_a_frame_in_several_fragments_is_joined(decode):
    pixels = noise(np.uint16, 16)
    data = compressed(of_pixels(pixels), JPEG_LS, compress(pixels, JPEG_LS), pieces=3)
    assert np.array_equal(decode(data)[1][0], pixels)


SHARED = [each for each in LOSSLESS if each != RLE]
"""Lossless syntaxes whose code streams say how deep they are."""


def deep(pixels, syntax, bits, **changes):
    """An image whose code stream holds all the bits of its samples, more than the header says."""
    return compressed(of_pixels(pixels, bits=bits, **changes), syntax, compress(pixels, syntax))


@pytest.mark.parametrize("syntax", SHARED)
def test_bits_above_the_stored_ones_of_a_code_stream_are_cleared_and_told(decode, syntax):
    pixels = noise(np.uint16, 16)
    facts, values, _, _ = decode(deep(pixels, syntax, 12))
    assert np.array_equal(values[0], decode(encoded(of_pixels(pixels, bits=12)))[1][0])
    assert np.array_equal(values[0], pixels & 0x0FFF)
    assert "deeper_than_bits_stored" in facts.warnings
    shallow = decode(deep(pixels & 0x0FFF, syntax, 12))
    assert "deeper_than_bits_stored" not in shallow[0].warnings


@pytest.mark.parametrize("syntax", SHARED)
def test_the_sign_of_a_deeper_code_stream_is_no_value(decode, syntax):
    pixels = noise(np.int16, 12, signed=True)
    code = compress(pixels.view(np.uint16), syntax)
    facts, values, _, _ = decode(compressed(of_pixels(pixels, bits=12), syntax, code))
    assert np.array_equal(values[0], pixels)
    assert "deeper_than_bits_stored" not in facts.warnings


@pytest.mark.parametrize("syntax", [JPEG_LS, "1.2.840.10008.1.2.4.81"])
def test_signed_values_of_a_code_stream_that_says_more_bits_than_it_has_are_not_doubted(
    decode, syntax
):
    pixels = noise(np.int16, 12, signed=True)
    code = bytes(imagecodecs.jpegls_encode(pixels.view(np.uint16) & 0x0FFF))
    assert code[code.index(b"\xff\xf7") + 4] == 16
    data = compressed(of_pixels(pixels, bits=12), syntax, code)
    facts, values, *_ = decode(data)
    assert np.array_equal(values[0], pixels)
    assert "deeper_than_bits_stored" not in facts.warnings


def test_what_overshoots_in_a_lossy_code_stream_stays_white(decode):
    pixels = np.add.outer(np.arange(64), np.arange(48)).astype(np.uint16) * 11
    code = bytes(imagecodecs.jpeg8_encode(pixels, level=100, bitspersample=12))
    facts, values, _, _ = decode(compressed(of_pixels(pixels, bits=10), JPEG_EXTENDED, code))
    assert pixels.max() > 1023
    assert np.abs(values[0].astype(int) - pixels.clip(0, 1023)).max() <= 4
    assert "deeper_than_bits_stored" in facts.warnings


def test_a_sequential_jpeg_with_a_scan_of_zeros_is_read_and_doubted(decode):
    pixels = (RAMP >> 4).astype(np.uint8)
    code = compress(pixels, JPEG_BASELINE)
    start = code.index(b"\xff\xda") + 2 + int.from_bytes(code[code.index(b"\xff\xda") + 2 :][:2])
    assert code[start - 3 : start] == b"\0\x3f\0"
    illegal = code[: start - 3] + bytes(3) + code[start:]
    legal, hurt = (
        decode(compressed(of_pixels(pixels), JPEG_BASELINE, each)) for each in (code, illegal)
    )
    assert np.array_equal(legal[1], hurt[1])
    assert "illegal_jpeg_scan" in hurt[0].warnings
    assert "illegal_jpeg_scan" not in legal[0].warnings


EIGHT = np.clip(RAMP >> 3, 0, 255).astype(np.uint8)


def jpeg(**how):
    """The ramp in 8 bits as a JPEG, by Pillow."""
    into = io.BytesIO()
    Image.fromarray(EIGHT).save(into, "JPEG", quality=95, **how)
    return into.getvalue()


LOSSLESS_JPEG = bytes(imagecodecs.jpeg8_encode(EIGHT, lossless=True))


@pytest.mark.parametrize(
    ("syntax", "code", "other", "lossy"),
    [
        (JPEG_BASELINE, jpeg(), False, True),
        (JPEG_BASELINE, jpeg(progressive=True), True, True),
        (JPEG_EXTENDED, jpeg(), False, True),
        (JPEG_EXTENDED, jpeg(progressive=True), True, True),
        (JPEG_LOSSLESS, LOSSLESS_JPEG, False, False),
        (JPEG_LOSSLESS, jpeg(), True, True),
        (JPEG_LS, imagecodecs.jpegls_encode(EIGHT), False, False),
        (JPEG_LS, imagecodecs.jpegls_encode(EIGHT, level=2), True, True),
        (JPEG_2000, compress(EIGHT, JPEG_2000), False, False),
        (JPEG_2000, imagecodecs.jpeg2k_encode(EIGHT, level=50, codecformat="j2k"), True, True),
        (HTJ2K, compress(EIGHT, HTJ2K), False, False),
        (HTJ2K, imagecodecs.htj2k_encode(EIGHT, level=0.01), True, True),
    ],
)
def test_what_is_coded_otherwise_than_its_syntax_says_is_read_and_doubted(
    decode, syntax, code, other, lossy
):
    facts, values, _, _ = decode(compressed(of_pixels(EIGHT), syntax, bytes(code)))
    assert np.abs(values[0].astype(int) - EIGHT).max() <= 4
    assert ("contradicted_transfer_syntax" in facts.warnings) is other
    assert facts.lossy is lossy


NEAR_LOSSLESS, LOSSY_2000 = "1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.91"
LOSSY_HTJ2K = "1.2.840.10008.1.2.4.203"


@pytest.mark.parametrize(
    ("syntax", "code", "loses"),
    [
        (NEAR_LOSSLESS, imagecodecs.jpegls_encode(EIGHT, level=2), True),
        (NEAR_LOSSLESS, imagecodecs.jpegls_encode(EIGHT), False),
        (LOSSY_2000, imagecodecs.jpeg2k_encode(EIGHT, level=50, codecformat="j2k"), True),
        (LOSSY_2000, compress(EIGHT, JPEG_2000), False),
        (LOSSY_HTJ2K, imagecodecs.htj2k_encode(EIGHT, level=0.01), True),
        (JPEG_BASELINE, jpeg(), True),
    ],
)
def test_loss_that_a_code_stream_shows_is_believed_before_the_header(decode, syntax, code, loses):
    ds = of_pixels(EIGHT, LossyImageCompression="00")
    facts, *_ = decode(compressed(ds, syntax, bytes(code)))
    assert facts.lossy is loses
    assert ("undeclared_loss" in facts.warnings) is loses
    ds.LossyImageCompression = "01"
    assert "undeclared_loss" not in decode(compressed(ds, syntax, bytes(code)))[0].warnings


@pytest.mark.parametrize("shift", [0, 4])
def test_dirt_outside_the_stored_bits_is_cleared(decode, shift):
    clean = noise(np.uint16, 12)
    dirty = (clean << shift) | np.uint16(0xF000 if shift == 0 else 0x000F)
    ds = of_pixels(dirty, bits=12)
    ds.HighBit = 11 + shift
    facts, values, _, _ = decode(encoded(ds))
    assert np.array_equal(values[0], clean)
    assert facts.stored_maximum == 4095


def test_dirt_above_a_signed_value_is_cleared(decode):
    clean = noise(np.int16, 12, signed=True)
    dirty = (clean & np.int16(0x0FFF)) | np.int16(0x5000)
    assert np.array_equal(decode(encoded(of_pixels(dirty, bits=12)))[1][0], clean)


def test_rescale_gives_modality_values_and_their_range(decode):
    pixels = noise(np.uint16, 12)
    ds = of_pixels(pixels, bits=12, RescaleSlope="0.5", RescaleIntercept="-1024")
    facts, values, _, _ = decode(encoded(ds))
    assert np.array_equal(values[0], pixels * 0.5 - 1024)
    assert (facts.value_minimum, facts.value_maximum) == (-1024, 1023.5)


@pytest.mark.parametrize(
    ("slope", "intercept"),
    [
        ("0", "-1024"),
        ("1", None),
        (None, "-1024"),
        ("", "-1024"),
        ("1", ""),
        ("nan", "0"),
        (["1", "2"], "0"),
    ],
)
def test_half_a_rescale_or_one_that_makes_all_the_same_is_refused(decode, slope, intercept):
    ds = of_pixels(noise(np.uint16, 12), bits=12)
    for keyword, value in {"RescaleSlope": slope, "RescaleIntercept": intercept}.items():
        if value is not None:
            setattr(ds, keyword, value)
    with pytest.raises(UnsupportedImage, match="rescale"):
        decode(encoded(ds))


def test_a_rescale_beyond_float32_is_refused(decode):
    huge = {"RescaleSlope": "1e300", "RescaleIntercept": "0"}
    with pytest.raises(UnsupportedImage, match="float32"):
        decode(encoded(of_pixels(RAMP, **huge)))
    real = np.linspace(0, 3e38, 48, dtype=np.float32).reshape(8, 6)
    with pytest.raises(UnsupportedImage, match="float32"):
        decode(encoded(real_pixels(real, RescaleSlope="4", RescaleIntercept="0")))
    assert decode(encoded(real_pixels(real)))[1].max() == real.max()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"Modality": "CT"}, True),
        ({"Modality": "CT", "RescaleSlope": "", "RescaleIntercept": ""}, True),
        ({"Modality": "CT", "RescaleSlope": "1", "RescaleIntercept": "0"}, False),
        ({"Modality": "MR"}, False),
    ],
)
def test_a_ct_image_without_a_rescale_is_told(decode, changes, told):
    pixels = noise(np.uint16, 12)
    facts, values, *_ = decode(encoded(of_pixels(pixels, bits=12, **changes)))
    assert np.array_equal(values[0], pixels)
    assert ("missing_rescale" in facts.warnings) is told


def real_pixels(values, **changes):
    """An image of floating-point pixels."""
    kind = "Double" if values.dtype.itemsize == 8 else ""
    ds = of_pixels(values.view(np.uint32).view(values.dtype), **changes)
    del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
    setattr(ds, f"{kind}FloatPixelData", values.tobytes())
    return ds


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floating_point_pixels_come_as_they_are(decode, dtype):
    pixels = np.random.default_rng(7).normal(0.1, 3, (64, 48)).astype(dtype)
    facts, values, display, padding = decode(encoded(real_pixels(pixels)))
    assert np.array_equal(values[0], pixels.astype(np.float32))
    assert padding is None
    assert (facts.value_minimum, facts.value_maximum) == (pixels.min(), pixels.max())
    low, high = np.percentile(pixels, (0.5, 99.5))
    assert np.abs(display - np.clip((pixels - low) / (high - low), 0, 1) * 255).max() <= 0.51


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_rescale_of_floating_point_pixels_is_applied(decode, dtype):
    pixels = np.random.default_rng(7).normal(4000, 900, (64, 48)).astype(dtype)
    data = encoded(real_pixels(pixels, RescaleSlope="0.25", RescaleIntercept="-1000.5"))
    facts, values, _, _ = decode(data)
    oracle = apply_rescale(pixels.astype(np.float64), dcmread(io.BytesIO(data)))
    assert np.array_equal(values[0], oracle.astype(np.float32))
    assert facts.value_maximum == pytest.approx(oracle.max())


@pytest.mark.parametrize(
    ("hole", "named"), [(np.nan, 7.5), (np.inf, 7.5), (7.5, 7.5), (-1e300,) * 2]
)
def test_floating_point_pixels_without_a_number_are_padding(decode, hole, named):
    pixels = np.random.default_rng(7).normal(0, 1, (64, 48))
    pixels[3, :5] = hole
    ds = real_pixels(pixels, DoubleFloatPixelPaddingValue=named)
    _, values, display, padding = decode(encoded(ds))
    assert np.array_equal(np.argwhere(padding), [(3, k) for k in range(5)])
    assert np.isfinite(values).all()
    assert not display[padding].any()


def test_values_beyond_float32_are_no_padding_and_are_refused_unless_their_rescale_helps(decode):
    pixels = np.random.default_rng(7).normal(0, 1e302, (64, 48))
    with pytest.raises(UnsupportedImage, match="float32"):
        decode(encoded(real_pixels(pixels)))
    scaled = real_pixels(pixels, RescaleSlope="1e-302", RescaleIntercept="0")
    _, values, _, padding = decode(encoded(scaled))
    assert padding is None
    assert np.array_equal(values[0], (pixels * 1e-302).astype(np.float32))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, EXPLICIT_BIG, RLE, JPEG_LS])
@pytest.mark.parametrize(
    ("dtype", "word", "value"),
    [(np.uint16, 63536, 63536), (np.uint16, 63536, -2000), (np.int16, -32768, -32768)],
)
def test_padding_that_bits_stored_cannot_hold_is_marked(decode, syntax, dtype, word, value):
    signed = dtype is np.int16
    pixels = noise(dtype, 12, signed=signed)
    alike = (word & 0xFFF) - (0x1000 if signed and word & 0x800 else 0)
    pixels[40] = alike  # looks the same once its bits above are cleared
    pixels[:5] = word
    stored = pixels.astype(pixels.dtype.newbyteorder(">")) if syntax == EXPLICIT_BIG else pixels
    ds = of_pixels(stored, bits=12)
    ds.add_new(0x00280120, "SS" if value < 0 else "US", value)
    native = syntax in {ExplicitVRLittleEndian, EXPLICIT_BIG}
    words = pixels.view(np.uint16)
    data = encoded(ds, syntax) if native else compressed(ds, syntax, compress(words, syntax))
    _, values, display, padding = decode(data)
    assert padding is not None
    assert np.array_equal(np.flatnonzero(padding.any(axis=1)), range(5))
    assert padding[:5].all()
    assert not display[:5].any()
    assert np.array_equal(values[0, 5:], pixels[5:])


def item(**elements):
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def test_a_modality_table_takes_the_place_of_the_rescale(decode):
    pixels = noise(np.uint8, 8)
    data = np.random.default_rng(3).integers(0, 4096, 200).astype("<u2")
    ds = of_pixels(pixels, RescaleSlope="3", RescaleIntercept="1")
    table = item(LUTDescriptor=[200, 20, 12], LUTData=data.tolist(), ModalityLUTType="US")
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    ds.ModalityLUTSequence = Sequence([table])
    expected = data[np.clip(pixels.astype(int) - 20, 0, 199)]
    assert np.array_equal(decode(encoded(ds))[1][0], expected)


def test_a_linear_window_is_the_standards(decode):
    pixels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    ds = of_pixels(pixels, bits=12, WindowCenter="2000", WindowWidth="1000")
    facts, values, display, _ = decode(encoded(ds))
    x = pixels.astype(float)
    expected = np.clip(((x - 1999.5) / 999 + 0.5) * 255, 0, 255)
    assert np.abs(display - expected).max() <= 0.51
    assert facts.window == (2000, 1000)
    assert np.array_equal(values[0], pixels)  # the window is for display alone


def test_of_several_windows_the_first_is_shown(decode):
    ds = of_pixels(RAMP, WindowCenter=["100", "1500"], WindowWidth=["200", "3000"])
    assert decode(encoded(ds))[0].window == (100, 200)


@pytest.mark.parametrize("shape", ["LINEAR_EXACT", "SIGMOID"])
def test_other_window_shapes_are_the_standards(decode, shape):
    ds = of_pixels(RAMP, WindowCenter="1000", WindowWidth="800", VOILUTFunction=shape)
    x = RAMP.astype(float)
    expected = {
        "LINEAR_EXACT": np.clip((x - 1000) / 800 + 0.5, 0, 1),
        "SIGMOID": 1 / (1 + np.exp(-4 * (x - 1000) / 800)),
    }[shape]
    assert np.abs(decode(encoded(ds))[2] - expected * 255).max() <= 0.51


def test_a_voi_table_is_shown(decode):
    pixels = noise(np.uint8, 8)
    data = np.random.default_rng(4).integers(0, 1024, 256)
    table = item(LUTDescriptor=[256, 0, 10], LUTData=data.tolist())
    table["LUTDescriptor"].VR = table["LUTData"].VR = "US"
    ds = of_pixels(pixels, VOILUTSequence=Sequence([table]))
    assert np.abs(decode(encoded(ds))[2] - data[pixels] / 1023 * 255).max() <= 0.51


def test_without_a_window_bytes_are_shown_as_they_are(decode):
    pixels = noise(np.uint8, 8)
    assert np.array_equal(decode(encoded(of_pixels(pixels)))[2], pixels)


def test_without_a_window_deep_pixels_are_shown_between_percentiles(decode):
    pixels = (RAMP // 4 + 1000).astype(np.uint16)
    pixels[0, 0] = 65535
    display = decode(encoded(of_pixels(pixels)))[2]
    assert display.min() == 0
    assert np.unique(display).size > 200


def test_monochrome1_is_inverted_on_display_and_nowhere_else(decode):
    ds = of_pixels(RAMP, WindowCenter="1536", WindowWidth="3072")
    plain = decode(encoded(ds))
    ds.PhotometricInterpretation = "MONOCHROME1"
    inverted = decode(encoded(ds))
    assert np.array_equal(inverted[2], 255 - plain[2])
    assert np.array_equal(inverted[1], plain[1])


@needs("dcm2pnm")
@pytest.mark.parametrize("space", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", [None, "IDENTITY", "INVERSE"])
def test_white_is_where_dcmtk_shows_it(decode, tmp_path, space, shape):
    changes = {"PresentationLUTShape": shape} if shape else {}
    ds = of_pixels(RAMP, WindowCenter="1536", WindowWidth="3072", **changes)
    ds.PhotometricInterpretation = space
    facts, values, display, _ = decode(encoded(ds))
    shown = tmp_path / "shown.pgm"
    subprocess.run(["dcm2pnm", "+Wi", "1", tmp_path / "object.dcm", shown], check=True, timeout=30)
    assert np.abs(display.astype(int) - np.asarray(Image.open(shown))).max() <= 1
    assert np.array_equal(
        values[0], RAMP
    )  # the model sees what the photometric interpretation says
    contradicted = shape not in {None, {"MONOCHROME1": "INVERSE"}.get(space, "IDENTITY")}
    assert ("contradicted_presentation_shape" in facts.warnings) is contradicted


@pytest.mark.parametrize(
    ("elements", "padded"),
    [
        ({"PixelPaddingValue": 7}, lambda x: x == 7),
        ({"PixelPaddingValue": 40, "PixelPaddingRangeLimit": 7}, lambda x: (x >= 7) & (x <= 40)),
    ],
    ids=["value", "range"],
)
@pytest.mark.parametrize("space", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_marked_and_black(decode, elements, padded, space):
    ds = of_pixels(RAMP, **elements)
    for keyword in elements:
        ds[keyword].VR = "US"
    ds.PhotometricInterpretation = space
    _, _, display, padding = decode(encoded(ds))
    assert np.array_equal(padding, padded(RAMP))
    assert not display[padding].any()


def test_a_padding_value_is_read_with_the_sign_of_the_pixels(decode):
    pixels = np.full((8, 8), -2000, np.int16)
    pixels[2:6, 2:6] = 100
    ds = of_pixels(pixels, PixelPaddingValue=63536)
    ds["PixelPaddingValue"].VR = "US"
    assert np.array_equal(decode(encoded(ds))[3], pixels == -2000)


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_damaged_code_streams_fail_as_undecodable(decode, syntax):
    pixels = noise(np.uint16, 16)
    code = compress(pixels, syntax)
    with pytest.raises(UndecodablePixels):
        decode(compressed(of_pixels(pixels), syntax, b"\x11" * 99 + code[:50]))


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_a_code_stream_of_another_size_is_refused(decode, syntax):
    pixels = noise(np.uint16, 16)
    code = compress(noise(np.uint16, 16, (32, 32)), syntax)
    with pytest.raises(UndecodablePixels):
        decode(compressed(of_pixels(pixels), syntax, code))


def test_the_kept_header_has_everything_but_the_pixels(decode, tmp_path):
    decode(encoded(of_pixels(RAMP)))
    kept = (tmp_path / "header.dcm").read_bytes()
    assert b"Canary^Patient" in kept
    assert RAMP.tobytes()[:64] not in kept


@pytest.mark.parametrize(
    ("shape", "extra", "told"), [((64, 48), 0, False), ((64, 48), 96, True), ((5, 5), 1, False)]
)
def test_pixel_data_beyond_the_image_is_told(decode, shape, extra, told):
    pixels = noise(np.uint8, 8, shape)
    ds = of_pixels(pixels)
    ds.PixelData = ds.PixelData + bytes(extra)
    facts, values, *_ = decode(encoded(ds))
    assert np.array_equal(values[0], pixels)
    assert ("surplus_pixel_data" in facts.warnings) is told


def test_an_element_of_a_value_representation_that_there_is_none_hurts_nothing_else(decode):
    data = encoded(of_pixels(RAMP))
    _, values, _, _ = decode(data.replace(b"\x10\x00\x10\x00PN", b"\x10\x00\x10\x00Pn"))
    assert np.array_equal(values[0], RAMP)
    _, values, _, _ = decode(data.replace(b"\x18\x00\x15\x00CS", b"\x18\x00\x15\x00Cs"))
    assert np.array_equal(values[0], RAMP)


def test_an_error_never_quotes_the_object(decode):
    ds = of_pixels(RAMP)
    ds.PhotometricInterpretation = "CANARY-1"
    with pytest.raises(WhylightError) as refusal:
        decode(encoded(ds))
    assert "CANARY" not in refusal.value.failure().model_dump_json()
