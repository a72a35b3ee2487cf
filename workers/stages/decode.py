"""Decode: the DICOM object to modality values and a displayed image."""

from pathlib import Path
from typing import Any

from service.errors import UndecodablePixels
from workers.parcels import Decoded, Fetched
from workers.pixels.decode import MAX_SAMPLES, DecodedFiles, decode_file
from workers.slots import Slots

LIMIT = 30.0
"""Seconds after which a decoder is taken for hung."""


def decode(
    fetched: Fetched, slots: Slots, *, max_samples: int = MAX_SAMPLES, limit: float = LIMIT
) -> Decoded:
    """Decode the job's image in a supervised process.

    Parameters
    ----------
    slots
        Where to decode.
    max_samples
        Most samples an image may have.
    limit
        Seconds after which the decoder is ended.

    Raises
    ------
    UndecodablePixels
        The decoder failed, crashed, hung or needed too much memory.
    WhylightError
        What `workers.pixels.decode.decode_file` raises, as a `JobFailure`.
    """
    message = {
        "file": str(fetched.file),
        "scratch": str(fetched.scratch),
        "frame": fetched.frame,
        "max_samples": max_samples,
    }
    answer = slots.run("decode", message, limit, lost=UndecodablePixels)
    files = DecodedFiles.model_validate(answer)
    return Decoded(
        fetched=fetched,
        facts=files.facts,
        pixels=files.pixels,
        display=files.display,
        padding=files.padding,
        header=files.header,
    )


def task(message: dict[str, Any]) -> dict[str, Any]:
    """Decode one file, inside a slot."""
    files = decode_file(
        Path(message["file"]),
        Path(message["scratch"]),
        frame=message.get("frame", 1),
        max_samples=message["max_samples"],
    )
    return files.model_dump(mode="json")
