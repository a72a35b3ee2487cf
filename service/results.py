"""Results: the document and the files that an ended job left, none of them damaged."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Protocol

from service import documents, paths
from service.domain.artifact import Artifact
from service.domain.explanation import Explanation, Result
from service.domain.job import Job
from service.errors.jobs import ResultDamaged
from service.errors.requests import Gone, NotAcceptable, NotFound, NotReady
from service.store.base import BlobStore
from service.telemetry import Log

NOT_READY_RETRY = 1
DAMAGED_FILE = "The stored file is not the one that was written for this explanation."


class Reader(Protocol):
    """Reads files that were found undamaged."""

    def __call__(
        self, artifact: Artifact, start: int = 0, end: int | None = None
    ) -> Iterator[bytes]:
        """Return bytes ``[start, end)`` of an artifact in chunks."""


class Results:
    """What ended jobs left in the store.

    Parameters
    ----------
    store
        Where documents and artifacts lie.
    """

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._log = Log()

    def document(self, job: Job) -> Explanation | None:
        """Return a job's document, if it has one.

        Raises
        ------
        Gone
            Its results were removed after their time.
        ResultDamaged
            The document was changed, or is another job's.
        """
        data = self._stored(job)
        return None if data is None else self._read(job, data)

    def artifacts(self, job: Job) -> tuple[Artifact, ...]:
        """Return an ended job's artifacts, the document as the last of them.

        Raises
        ------
        NotReady
            The job has not ended.
        Gone, ResultDamaged
            As of `document`.
        """
        results, document = self._ended(job)
        return (*(file for each in results for file in each.artifacts), *document)

    def artifact(self, job: Job, name: str) -> Artifact:
        """Return one of an ended job's artifacts.

        Raises
        ------
        NotAcceptable
            It was asked for and does not suit the map.
        NotFound
            The job has none of this name.
        NotReady, Gone, ResultDamaged
            As of `artifacts`.
        """
        results, document = self._ended(job)
        for file in (*(file for each in results for file in each.artifacts), *document):
            if file.name == name:
                return file
        for omitted in (omission for each in results for omission in each.omitted):
            if omitted.name == name:
                why = omitted.reason
                raise NotAcceptable(why.detail, pointer=None, format=omitted.format, **why.facts)
        raise NotFound("The job has no such artifact; its index lists those there are.")

    def _ended(self, job: Job) -> tuple[tuple[Result, ...], tuple[Artifact, ...]]:
        """Return an ended job's results, and its document as a file if it has one."""
        if not job.state.ended:
            raise NotReady(
                "The job has not ended; ask again later, or follow its events.",
                state=job.state.value,
                retry_after=NOT_READY_RETRY,
            )
        data = self._stored(job)
        if data is None:
            return (), ()
        return self._read(job, data).results, (_listed(data),)

    def open(self, job: Job, files: Iterable[Artifact]) -> Reader:
        """Hold artifacts against their digests; return what reads them.

        Each file is read twice then, so that not one byte of a wrong one is
        handed out, however large it is and whichever range of it is asked for.

        Raises
        ------
        ResultDamaged
            A file is not the one that was written for this job.
        Gone
            A file was removed.
        """
        for each in files:
            digest = hashlib.sha256()
            for chunk in self._stream(job, each.name):
                digest.update(chunk)
            if digest.hexdigest() != each.sha256:
                raise self._damaged(job, ResultDamaged(DAMAGED_FILE))
        return lambda artifact, start=0, end=None: self._stream(job, artifact.name, start, end)

    def _stream(
        self, job: Job, name: str, start: int = 0, end: int | None = None
    ) -> Iterator[bytes]:
        try:
            return self._store.stream(paths.artifact(_published(job), name), start, end)
        except FileNotFoundError:
            raise _gone() from None

    def _stored(self, job: Job) -> bytes | None:
        """Return the bytes of a job's document, if it has one."""
        if not job.state.ended or job.result is None:
            return None
        try:
            return self._store.get(paths.document(job.result))
        except FileNotFoundError:
            raise _gone() from None

    def _read(self, job: Job, data: bytes) -> Explanation:
        """Return a document whose seal holds and that is of this job."""
        try:
            return documents.read(data, job.id)
        except ResultDamaged as error:
            raise self._damaged(job, error) from None

    def _damaged(self, job: Job, error: ResultDamaged) -> ResultDamaged:
        """Tell the operator of a damaged result; return what its caller is told."""
        self._log.warning("result_damaged", job=job.id, tenant=job.tenant)
        return error


def _published(job: Job) -> str:
    if job.result is None:
        raise _gone()
    return job.result


def _listed(data: bytes) -> Artifact:
    """Return the document as a file among the artifacts."""
    return Artifact(
        name=paths.DOCUMENT_NAME,
        format="job",
        media_type="application/json",
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _gone() -> Gone:
    return Gone("The results were removed: their time is over. Ask for the explanation anew.")
