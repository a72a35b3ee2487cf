"""A file made of an explanation."""

from service.domain.value import Sha256, Value


class Artifact(Value):
    """One file of a job's results, by name."""

    name: str
    """``{method}.{target}.{format extension}``, such as ``grad_cam.nodule.dcm``.

    The document of the job itself is ``job.json``.
    """

    format: str
    """Name of the format that wrote it, such as ``dicom_sc``; ``job`` of the document."""

    method: str | None = None
    target: str | None = None
    """`None` of the document, which is of all methods and targets."""

    media_type: str
    bytes: int
    sha256: Sha256
