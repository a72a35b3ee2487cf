"""A JPEG whose data end before its image, with an end marker behind them, is never shown."""

import io
from functools import partial

import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import generate_frames

from service.dicom.dataset import parsed
from service.dicom.header import header_of
from service.dicom.syntaxes import FAMILIES, JPEG_COLOR
from service.errors.studies import UndecodablePixels
from tests.support import corpus
from workers.pixels.codecs import decode_frame
from workers.pixels.jpeg_ends import decoded_whole

END = b"\xff\xd9"
KEPT = (0.02, 0.3, 0.5, 0.9, 0.99)
"""Shares of the coded data behind which they are cut, and the end marker put."""

decode = imagecodecs.jpeg8_decode


def apart(code):
    """Decode without a conversion of color."""
    color = code.find(b"JFIF") > 0 and decode(code).ndim > 2
    return decode(code, colorspace="YCBCR", outcolorspace="YCBCR") if color else decode(code)


def cut(code, kept):
    """Cut coded data, keeping a share of them, or all but a number of bytes."""
    start, end = code.index(b"\xff\xda") + 12, code.rindex(END)
    stop = start + int((end - start) * kept) if kept < 1 else end - int(kept)
    return code[:stop].rstrip(b"\xff") + END


JPEGS = [
    path
    for path in corpus.FILES
    if (found := corpus.header(path)) and FAMILIES[found.transfer_syntax_uid] in JPEG_COLOR
]


@pytest.mark.skipif(not corpus.FILES, reason=corpus.REASON)
def test_the_corpus_has_every_kind_of_jpeg():
    families = {FAMILIES[corpus.header(path).transfer_syntax_uid] for path in JPEGS}
    assert families == JPEG_COLOR


@pytest.mark.parametrize("path", JPEGS, ids=corpus.name)
def test_a_real_jpeg_that_is_cut_and_ended_is_refused_and_the_whole_one_is_not(path):
    with parsed(path, max_samples=corpus.LIMIT) as found:
        header = header_of(found, max_samples=corpus.LIMIT, identified=False)
    data = pydicom.dcmread(path).PixelData
    code = next(generate_frames(data, number_of_frames=header.number_of_frames))
    whole = decode_frame(code, header)
    assert np.array_equal(whole, decode(code))
    for kept in (*KEPT, 8):
        with pytest.raises(UndecodablePixels, match="end before"):
            decode_frame(cut(code, kept), header)


NOISE = np.random.default_rng(3).integers(0, 256, (75, 90)).astype(np.uint8)
RAMP = np.add.outer(np.arange(75), np.arange(90)).astype(np.uint8)
BELOW = np.arange(75)[:, None] > 30


def images(middle, dtype):
    """Images whose end may be taken for that of one cut short."""
    scale = middle // 128
    detailed = RAMP.astype(dtype) * scale + NOISE // 16
    yield "detailed", detailed
    for gray in (0, middle - 1, middle, middle + scale, 2 * middle - 1):
        yield f"flat bottom {gray}", np.where(BELOW, gray, detailed).astype(dtype)
        yield (
            f"ends in {gray}",
            np.where(BELOW & BELOW[::-1].T[:, :1], gray, detailed).astype(dtype),
        )
        for shape in ((75, 90), (1, 1), (8, 8), (3, 17), (64, 64)):
            yield f"all {gray} {shape}", np.full(shape, gray, dtype)
    yield "tiny", detailed[:1, :1]
    yield "one row", detailed[:1]
    yield "one column", detailed[:, :1]


def pillow(image, **options):
    into = io.BytesIO()
    Image.fromarray(image).save(into, "JPEG", quality=95, **options)
    return into.getvalue()


def color(image):
    return np.stack([image, np.roll(image, 3, -1), 255 - image], -1)


def gray_color(image):
    return np.stack([image] * 3, -1)


def scan_by_scan(image):
    """Three components, each coded by itself, behind one another."""
    codes = [pillow(image[..., k], optimize=True) for k in range(3)]
    first = codes[0]
    frame = first.index(b"\xff\xc0")
    head = first[:frame]
    size = first[frame + 5 : frame + 9]
    head += b"\xff\xc0\x00\x11\x08" + size + b"\x03" + b"\1\x11\0\2\x11\0\3\x11\0"
    for k, code in enumerate(codes, 1):
        tables, scan = code.index(b"\xff\xc4"), code.index(b"\xff\xda")
        start = scan + 10
        head += code[tables:scan] + b"\xff\xda\x00\x08\x01" + bytes([k]) + b"\x00\x00\x3f\x00"
        head += code[start : code.rindex(END)]
    return head + END


BITS8 = {
    "gray": pillow,
    "gray, optimized": partial(pillow, optimize=True),
    "gray, factors of two": lambda i: pillow(i).replace(b"\1\1\x11\0", b"\1\1\x22\0", 1),
    "gray, restarts by row": partial(pillow, restart_marker_rows=1),
    "gray, optimized restarts": partial(pillow, optimize=True, restart_marker_rows=1),
    "gray, restarts by block": partial(pillow, restart_marker_blocks=7),
    "one for one": lambda i: pillow(color(i), subsampling=0),
    "halved across": lambda i: pillow(color(i), subsampling=1),
    "halved both ways": lambda i: pillow(color(i), subsampling=2, optimize=True),
    "gray in color": lambda i: pillow(gray_color(i), subsampling=1, optimize=True),
    "scan by scan": lambda i: scan_by_scan(color(i)),
    "gray scan by scan": lambda i: scan_by_scan(gray_color(i)),
    "gray, progressive": partial(pillow, progressive=True),
    "progressive": lambda i: pillow(color(i), progressive=True, subsampling=0),
    "progressive, halved both ways": lambda i: pillow(color(i), progressive=True, subsampling=2),
    "lossless": partial(imagecodecs.jpeg8_encode, lossless=True),
    "lossless color": lambda i: imagecodecs.jpeg8_encode(color(i), lossless=True),
}
BITS12 = {
    "extended": partial(imagecodecs.jpeg8_encode, bitspersample=12),
    **{
        f"lossless {n}": partial(
            imagecodecs.jpeg8_encode, bitspersample=12, lossless=True, predictor=n
        )
        for n in range(1, 8)
    },
}
BITS16 = {"lossless 16": partial(imagecodecs.jpeg8_encode, bitspersample=16, lossless=True)}
CODERS = [
    *((BITS8[name], 128, np.uint8, name) for name in BITS8),
    *((BITS12[name], 2048, np.uint16, name) for name in BITS12),
    *((BITS16[name], 32768, np.uint16, name) for name in BITS16),
]


@pytest.mark.parametrize(
    ("coder", "middle", "dtype"), [c[:3] for c in CODERS], ids=[c[3] for c in CODERS]
)
def test_a_whole_image_is_not_refused_whatever_it_ends_in(coder, middle, dtype):
    refused = []
    for name, image in images(middle, dtype):
        code = bytes(coder(image))
        found = decoded_whole(code, decode, apart)
        if found is None:
            refused.append(name)
        else:
            assert np.array_equal(found, decode(code)), name
    assert refused == []


@pytest.mark.parametrize(
    ("coder", "middle", "dtype"), [c[:3] for c in CODERS], ids=[c[3] for c in CODERS]
)
def test_an_image_that_is_cut_and_ended_is_refused(coder, middle, dtype):
    code = bytes(coder(dict(images(middle, dtype))["detailed"]))
    shown = [s for s in (*KEPT, 8, 2) if decoded_whole(cut(code, s), decode, apart) is not None]
    assert shown == []


def test_scans_that_lack_altogether_are_noticed():
    code = scan_by_scan(color(RAMP))
    third = code.rindex(b"\xff\xda\x00\x08")
    last = code.rindex(b"\xff\xc4", 0, third)
    assert decoded_whole(code[:last] + END, decode, apart) is None
