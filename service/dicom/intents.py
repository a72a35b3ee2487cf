"""What the pixels of a digital X-ray are meant for: to be shown, or to be processed first."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pydicom.uid import (
    BreastProjectionXRayImageStorageForPresentation,
    BreastProjectionXRayImageStorageForProcessing,
    DigitalIntraOralXRayImageStorageForPresentation,
    DigitalIntraOralXRayImageStorageForProcessing,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)

PRESENTATION: Final = "FOR PRESENTATION"
PROCESSING: Final = "FOR PROCESSING"

OF_CLASS: Final[Mapping[str, str]] = MappingProxyType(
    {
        DigitalXRayImageStorageForPresentation: PRESENTATION,
        DigitalXRayImageStorageForProcessing: PROCESSING,
        DigitalMammographyXRayImageStorageForPresentation: PRESENTATION,
        DigitalMammographyXRayImageStorageForProcessing: PROCESSING,
        DigitalIntraOralXRayImageStorageForPresentation: PRESENTATION,
        DigitalIntraOralXRayImageStorageForProcessing: PROCESSING,
        BreastProjectionXRayImageStorageForPresentation: PRESENTATION,
        BreastProjectionXRayImageStorageForProcessing: PROCESSING,
    }
)
"""Presentation Intent Type by SOP class, where there is a class for each (PS3.4 B.5)."""


def intent_of(said: str, sop_class_uid: str) -> str:
    """Return what an object says, else what its SOP class does; empty where neither does.

    Parameters
    ----------
    said
        Presentation Intent Type (PS3.3 C.8.11.1); empty where it is missing.
    """
    return said if said in (PRESENTATION, PROCESSING) else OF_CLASS.get(sop_class_uid, "")
