"""Which images a model takes, as far as it depends on how many channels they are prepared to."""

from typing import Final

from service.dicom.photometric import COLOR, GRAY, MONOCHROME
from service.domain.manifest import Manifest
from workers.stages.prepare import parse_steps

CHANNELS: Final = {each: 1 if each in MONOCHROME else 3 for each in sorted(GRAY | COLOR)}
"""Channels of an image as it is decoded, by photometric interpretation."""


def fitted(manifest: Manifest, taken: int) -> Manifest:
    """Return a manifest that accepts only images of which its steps make what the model takes.

    Parameters
    ----------
    taken
        Channels of the model's input.
    """
    image, steps = manifest.image, parse_steps(manifest.image.steps)

    def made(label: str) -> int | None:
        channels = CHANNELS.get(label)
        for step in steps:
            channels = None if channels is None else step.channels(channels)
        return channels

    listed = image.accept.photometric_interpretations or tuple(CHANNELS)
    fitting = tuple(label for label in listed if made(label) == taken)
    if fitting in {(), listed}:  # none would mean any; what no image fits fails its self-tests
        return manifest
    accept = image.accept.model_copy(update={"photometric_interpretations": fitting})
    first, *others = manifest.inputs
    strict = first.model_copy(update={"accept": accept})
    return manifest.model_copy(update={"inputs": (strict, *others)})
