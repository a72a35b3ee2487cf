"""A file made of an explanation."""

from service.domain.value import Sha256, Value


class Artifact(Value):
    """One file of a job's results, by name."""

    name: str
    """``{method}.{target}.{format extension}``, such as ``grad_cam.nodule.dcm``."""

    format: str
    """Name of the format that wrote it, such as ``dicom_sc``."""

    method: str
    target: str
    media_type: str
    bytes: int
    sha256: Sha256
