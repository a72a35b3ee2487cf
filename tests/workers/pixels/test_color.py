"""Color in every form that images have it, as RGB."""

import io
import subprocess
from itertools import product

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from service.errors.studies import UnsupportedImage
from tests.support.phantom_dicom import (
    JPEG_2000,
    JPEG_BASELINE,
    JPEG_LS,
    LOSSLESS,
    RLE,
    compress,
    compressed,
    encoded,
    noise,
    of_pixels,
)
from tests.support.programs import needs
from workers.pixels.codecs import has_color_transform

RAMP = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_color_comes_as_rgb(decode, syntax):
    pixels = np.stack([RAMP >> shift for shift in (0, 2, 4)], -1).astype(np.uint8)
    _, values, display, _ = decode(compressed(of_pixels(pixels), syntax, compress(pixels, syntax)))
    assert np.array_equal(np.moveaxis(values, 0, -1), pixels)
    assert np.array_equal(display, pixels)


def test_color_by_plane_is_interleaved(decode):
    pixels = noise(np.uint8, 8, (64, 48, 3))
    ds = of_pixels(pixels)
    ds.PlanarConfiguration = 1
    ds.PixelData = np.moveaxis(pixels, -1, 0).tobytes()
    assert np.array_equal(decode(encoded(ds))[2], pixels)


YBR = np.array([[[81, 90, 240], [145, 54, 34]], [[41, 240, 110], [235, 128, 128]]], np.uint8)


def full_range_rgb(ybr, bits=8):
    """The conversion as the standard's formulas state it, in integers' nearest."""
    y, cb, cr = (ybr[..., i].astype(float) for i in range(3))
    half = 1 << (bits - 1)
    rgb = [
        y + 1.402 * (cr - half),
        y - 0.114 * 1.772 / 0.587 * (cb - half) - 0.299 * 1.402 / 0.587 * (cr - half),
        y + 1.772 * (cb - half),
    ]
    return np.clip(np.floor(np.stack(rgb, -1) + 0.5), 0, (1 << bits) - 1)


def of_pairs(ybr, label):
    """An image whose pixels share their chroma in pairs, that of the left one."""
    ds = of_pixels(ybr)
    ds.PhotometricInterpretation = label
    left, right = ybr[:, 0::2], ybr[:, 1::2]
    pairs = np.stack([left[..., 0], right[..., 0], left[..., 1], left[..., 2]], -1)
    ds.PixelData = pairs.tobytes()
    return ds


def test_ybr_full_is_converted(decode):
    ds = of_pixels(YBR)
    ds.PhotometricInterpretation = "YBR_FULL"
    assert np.array_equal(decode(encoded(ds))[2], full_range_rgb(YBR))


@pytest.mark.parametrize("syntax", [None, JPEG_LS, RLE])
@pytest.mark.parametrize("bits", [12, 16])
def test_ybr_of_more_than_8_bits_is_converted(decode, bits, syntax):
    ybr = noise(np.uint16, bits, (8, 6, 3))
    ds = of_pixels(ybr, bits=bits)
    ds.PhotometricInterpretation = "YBR_FULL"
    data = compressed(ds, syntax, compress(ybr, syntax)) if syntax else encoded(ds)
    found = np.moveaxis(decode(data)[1], 0, -1)
    assert np.abs(found - full_range_rgb(ybr, bits)).max() <= 1


def test_ybr_of_32_bits_is_converted(decode):
    ybr = np.random.default_rng(9).integers(0, 1 << 32, (8, 6, 3)).astype(np.uint32)
    ds = of_pixels(ybr)
    ds.PhotometricInterpretation = "YBR_FULL"
    found = np.moveaxis(decode(encoded(ds))[1], 0, -1)
    assert np.abs(found - full_range_rgb(ybr, 32)).max() < 1e-6 * 2**32


def test_ybr_422_shares_the_chroma_of_a_pair(decode):
    shared = YBR.copy()
    shared[:, 1, 1:] = shared[:, 0, 1:]
    assert np.array_equal(decode(encoded(of_pairs(YBR, "YBR_FULL_422")))[2], full_range_rgb(shared))


def test_color_in_the_range_of_video_spans_16_to_235(decode):
    """ITU-R BT.601's own values of black, white, and red, green and blue at full."""
    ybr = [[16, 128, 128], [235, 128, 128], [82, 90, 240], [145, 54, 34], [41, 240, 110]]
    rgb = [[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]
    twice = np.repeat(np.array(ybr, np.uint8)[:, None], 2, axis=1)
    _, _, display, _ = decode(encoded(of_pairs(twice, "YBR_PARTIAL_422")))
    assert np.abs(display[:, 0].astype(int) - rgb).max() <= 2
    assert np.array_equal(display[:, 0], display[:, 1])


@needs("dcm2pnm")
@pytest.mark.parametrize(
    ("label", "bits"),
    [
        *product(["YBR_FULL", "YBR_FULL_422"], [8, 12, 16]),
        ("YBR_PARTIAL_422", 8),
    ],
)
def test_color_equals_dcmtks(decode, tmp_path, label, bits):
    ybr = noise(np.uint8 if bits == 8 else np.uint16, bits, (16, 12, 3))
    ds = of_pairs(ybr, label) if label != "YBR_FULL" else of_pixels(ybr)
    ds.PhotometricInterpretation, ds.BitsStored, ds.HighBit = label, bits, bits - 1
    _, values, _, _ = decode(encoded(ds))
    subprocess.run(
        ["dcm2pnm", "--write-raw-pnm", tmp_path / "object.dcm", tmp_path / "shown.ppm"],
        check=True,
        timeout=30,
    )
    reference = np.asarray(Image.open(tmp_path / "shown.ppm"), int)
    assert np.abs(np.moveaxis(values, 0, -1) / 2 ** (bits - 8) - reference).max() <= 3


@pytest.mark.parametrize(
    ("label", "syntax", "pixels"),
    [
        ("YBR_PARTIAL_420", None, YBR),
        ("YBR_PARTIAL_422", None, YBR.astype(np.uint16)),
        ("YBR_PARTIAL_422", RLE, YBR),
        ("YBR_PARTIAL_420", JPEG_LS, YBR),
    ],
)
def test_color_in_the_range_of_video_that_nobody_defined_is_refused_by_name(
    decode, label, syntax, pixels
):
    ds = of_pixels(pixels)
    ds.PhotometricInterpretation = label
    data = compressed(ds, syntax, compress(pixels, syntax)) if syntax else encoded(ds)
    with pytest.raises(UnsupportedImage, match="YBR_PARTIAL"):
        decode(data)


def test_uncompressed_color_that_is_called_jpeg_2000s_is_rgb_and_doubted(decode):
    ds = of_pixels(YBR)
    ds.PhotometricInterpretation = "YBR_RCT"
    facts, _, display, _ = decode(encoded(ds))
    assert np.array_equal(display, YBR)
    assert "contradicted_color_label" in facts.warnings


@pytest.mark.parametrize("space", ["RGB", "YBR_FULL_422"])
def test_baseline_jpeg_is_rgb_whatever_the_header_calls_it(decode, space):
    smooth = np.stack([np.add.outer(np.arange(64), np.arange(48)) * f for f in (2, 1, 0.5)], -1)
    pixels = smooth.clip(0, 255).astype(np.uint8)
    ds = of_pixels(pixels)
    ds.PhotometricInterpretation = space  # the code stream's JFIF marker says YCbCr
    facts, _, display, _ = decode(compressed(ds, JPEG_BASELINE, compress(pixels, JPEG_BASELINE)))
    assert np.abs(display.astype(int) - pixels).max() < 16
    assert facts.lossy


def test_color_of_32_bits_keeps_its_upper_bits_on_display(decode):
    pixels = np.random.default_rng(9).integers(0, 1 << 32, (8, 6, 3)).astype(np.uint32)
    _, values, display, _ = decode(encoded(of_pixels(pixels)))
    assert np.array_equal(display, pixels >> 24)
    assert np.array_equal(np.moveaxis(values, 0, -1), pixels.astype(np.float32))


@pytest.mark.parametrize("label", ["YBR_FULL", "RGB", "YBR_RCT"])
def test_a_jpeg_2000_stream_tells_its_color_and_a_wrong_label_is_a_doubt(decode, label):
    pixels = np.stack([RAMP >> shift for shift in (0, 2, 4)], -1).astype(np.uint8)
    for transformed in (False, True):
        code = imagecodecs.jpeg2k_encode(
            pixels, level=0, reversible=True, codecformat="j2k", mct=transformed
        )
        ds = of_pixels(pixels)
        ds.PhotometricInterpretation = label
        facts, _, display, _ = decode(compressed(ds, JPEG_2000, bytes(code)))
        if transformed or label != "YBR_FULL":
            assert np.array_equal(display, pixels)
        doubted = "contradicted_color_label" in facts.warnings
        assert doubted is ((label == "YBR_RCT") != transformed)


@pytest.mark.parametrize(
    ("space", "doubted"), [("RGB", True), ("YBR_FULL_422", False), ("YBR_PARTIAL_420", True)]
)
def test_a_jpeg_whose_markers_contradict_the_header_is_doubted(decode, space, doubted):
    pixels = np.repeat(RAMP[..., None] >> 4, 3, -1).astype(np.uint8)
    ds = of_pixels(pixels)
    ds.PhotometricInterpretation = space
    facts = decode(compressed(ds, JPEG_BASELINE, compress(pixels, JPEG_BASELINE)))[0]
    assert ("contradicted_color_label" in facts.warnings) is doubted


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:2:2"])
def test_a_jpeg_of_halved_chroma_is_no_rgb_whatever_its_label(decode, subsampling):
    """As Pillow reads it with the marker that says so, which was taken away from ours."""
    smooth = np.stack([np.add.outer(np.arange(64), np.arange(48)) * f for f in (2, 1, 0.5)], -1)
    pixels, made = smooth.clip(0, 255).astype(np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(made, "JPEG", quality=98, subsampling=subsampling)
    code = made.getvalue()
    assert code[2:4] == b"\xff\xe0"
    silent = code[:2] + code[4 + int.from_bytes(code[4:6], "big") :]
    facts, _, display, _ = decode(compressed(of_pixels(pixels), JPEG_BASELINE, silent))
    assert np.abs(display.astype(int) - np.asarray(Image.open(made))).max() <= 3
    assert "contradicted_color_label" in facts.warnings


FRAME = b"\xff\xd8\xff\xc0\x00\x11\x08\0\x08\0\x08\x03"
"""A JPEG frame header up to its three components."""


@pytest.mark.parametrize(
    ("code", "label", "transformed"),
    [
        (b"\xff\xd8\xff\xe0\x00\x07JFIF\x00", "RGB", True),
        (b"\xff\xd8\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0\x00", "YBR_FULL", False),
        (b"\xff\xd8\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0\x01", "RGB", True),
        (FRAME + b"R\x11\0G\x11\0B\x11\0", "YBR_FULL", False),
        (FRAME + b"\x01\x11\0\x02\x11\0\x03\x11\0", "RGB", False),
        (FRAME + b"\x01\x11\0\x02\x11\0\x03\x11\0", "YBR_FULL", True),
        (FRAME + b"\x01\x22\0\x02\x11\0\x03\x11\0", "RGB", True),
        (FRAME + b"\x01\x21\0\x02\x11\0\x03\x11\0", "RGB", True),
        (FRAME + b"R\x22\0G\x11\0B\x11\0", "YBR_FULL", False),
        (b"\xff\xd8", "YBR_FULL_422", True),
    ],
)
def test_a_jpegs_own_markers_tell_its_color_before_the_header_does(code, label, transformed):
    assert has_color_transform(code, label) is transformed


def with_palette(index, tables, descriptor):
    """An image of these stored values, whose palette is written as bytes or as words."""
    ds = of_pixels(index)
    ds.PhotometricInterpretation = "PALETTE COLOR"
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        ds.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", descriptor)
        data = table.tobytes()
        ds.add_new(f"{name}PaletteColorLookupTableData", "OW", data + bytes(len(data) % 2))
    return encoded(ds)


@pytest.mark.parametrize(
    ("entries", "bits", "kept", "doubted"),
    [
        (256, 8, "u1", False),
        (255, 8, "u1", False),
        (255, 8, "<u2", False),
        (256, 12, "<u2", False),
        (256, 16, "<u2", False),
        (256, 8, "<u2", True),
        (256, 16, "u1", True),
    ],
)
def test_a_palette_has_the_bits_of_its_entries(decode, entries, bits, kept, doubted):
    index = np.minimum(noise(np.uint8, 8), entries - 1)
    colors = np.random.default_rng(2).integers(0, 256, (3, entries))
    shift = 0 if doubted and kept == "u1" else (8 if doubted else bits - 8)
    data = with_palette(index, (colors << shift).astype(kept), [entries, 0, bits])
    facts, values, _, _ = decode(data)
    assert np.array_equal(values, colors[:, index])
    assert ("contradicted_palette_bits" in facts.warnings) is doubted


def test_a_palette_is_looked_up(decode):
    index = noise(np.uint8, 8)
    ds = of_pixels(index, bits=8)
    ds.PhotometricInterpretation = "PALETTE COLOR"
    tables = np.random.default_rng(2).integers(0, 65536, (3, 256)).astype("<u2")
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        setattr(ds, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(ds, f"{name}PaletteColorLookupTableData", table.tobytes())
    assert np.array_equal(decode(encoded(ds))[2], np.moveaxis(tables[:, index] >> 8, 0, -1))
