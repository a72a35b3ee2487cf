"""The product's tasks with one codec of four that ends its process: that of JPEG-LS."""

import ctypes

import imagecodecs

from workers.tasks import TASKS

__all__ = ["TASKS"]


def crash(_code: bytes) -> None:
    """Read memory that is nobody's, as a codec with a defect does."""
    ctypes.string_at(0)


imagecodecs.jpegls_decode = crash
