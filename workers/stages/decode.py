"""Decode: the DICOM object to modality values and a displayed image."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from service.domain.inputs import VolumeRules
from service.domain.volume import Volume
from service.errors.studies import UndecodablePixels
from workers.parcels import Decoded, Fetched
from workers.pixels.decode import MAX_SAMPLES, DecodedFiles, decode_file
from workers.slots import Slots
from workers.volumes.decode import (
    MAX_VOXELS,
    Portion,
    Survey,
    decode_portion,
    finish,
    survey,
)

UNREAD = "unread_images"
"""Warning of several images of a study with which others came that could not be read."""

LIMIT = 30.0
"""Seconds after which a decoder is taken for hung."""


def decode(
    fetched: Fetched,
    slots: Slots,
    *,
    max_samples: int = MAX_SAMPLES,
    max_voxels: int = MAX_VOXELS,
    limit: float = LIMIT,
    on_progress: Callable[[float], None] = lambda _: None,
) -> Decoded:
    """Decode the job's image, its series or its views, in supervised processes.

    Parameters
    ----------
    slots
        Where to decode.
    max_samples
        Most samples an image may have.
    max_voxels
        Most voxels a volume may have.
    limit
        Seconds after which the decoder is ended: for an image, for the headers
        of a series, and for each portion of its slices.
    on_progress
        Called between portions with the share that is done; what it raises
        ends the work.

    Raises
    ------
    UndecodablePixels
        The decoder failed, crashed, hung or needed too much memory.
    WhylightError
        What `workers.pixels.decode.decode_file` or `workers.volumes.decode.survey`
        raises, as a `JobFailure`.
    """
    if fetched.views:
        decoded = []
        for each in fetched.views:
            decoded.append(decode(each, slots, max_samples=max_samples, limit=limit))
            on_progress(len(decoded) / len(fetched.views))
        return replace(decoded[0], fetched=fetched, views=tuple(decoded))
    if fetched.series:
        limits = {"max_samples": max_samples, "max_voxels": max_voxels}
        return _decode_series(fetched, slots, limits, limit, on_progress)
    message = {
        "file": str(fetched.file),
        "scratch": str(fetched.scratch),
        "frame": fetched.frame,
        "max_samples": max_samples,
    }
    answer = slots.run("decode", message, limit, lost=UndecodablePixels)
    beside = [
        decode(each, slots, max_samples=max_samples, limit=limit) for each in fetched.references
    ]
    one = _decoded(fetched, DecodedFiles.model_validate(answer))
    return replace(one, references=tuple(beside))


def _decode_series(
    fetched: Fetched,
    slots: Slots,
    limits: Mapping[str, int],
    limit: float,
    on_progress: Callable[[float], None],
) -> Decoded:
    """Decode a series portion by portion."""
    rules = fetched.manifest.image.accept.volume or VolumeRules()
    common = {
        "files": [str(each.file) for each in fetched.series],
        "scratch": str(fetched.scratch),
        **limits,
    }
    asked = {**common, "rules": rules.model_dump(mode="json")}
    answer = slots.run("survey", asked, limit, lost=UndecodablePixels)
    seen = Survey.model_validate(answer)
    portions = []
    for start, stop in seen.portions:
        asked = {**common, "survey": answer, "start": start, "stop": stop}
        done = slots.run("decode_portion", asked, limit, lost=UndecodablePixels)
        portions.append(Portion.model_validate(done))
        on_progress(stop / len(seen.places))
    return _decoded(fetched, finish(fetched.scratch, seen, portions), seen.volume)


def _decoded(fetched: Fetched, files: DecodedFiles, volume: Volume | None = None) -> Decoded:
    facts = files.facts
    if fetched.unread and (volume is not None or fetched.view is not None):
        facts = facts.model_copy(update={"warnings": (*facts.warnings, UNREAD)})
    return Decoded(
        fetched=fetched,
        facts=facts,
        pixels=files.pixels,
        display=files.display,
        padding=files.padding,
        header=files.header,
        volume=volume,
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


def survey_task(message: dict[str, Any]) -> dict[str, Any]:
    """Read the headers of a series, inside a slot."""
    seen = survey(
        [Path(each) for each in message["files"]],
        Path(message["scratch"]),
        VolumeRules.model_validate(message["rules"]),
        max_samples=message["max_samples"],
        max_voxels=message["max_voxels"],
    )
    return seen.model_dump(mode="json")


def portion_task(message: dict[str, Any]) -> dict[str, Any]:
    """Decode some slices of a series, inside a slot."""
    portion = decode_portion(
        [Path(each) for each in message["files"]],
        Path(message["scratch"]),
        Survey.model_validate(message["survey"]),
        message["start"],
        message["stop"],
        max_samples=message["max_samples"],
    )
    return portion.model_dump(mode="json")
