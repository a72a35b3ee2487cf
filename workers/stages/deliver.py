"""Deliver: the artifacts, then the document, to a prefix that only this lease writes."""

from service import documents, paths
from service.domain.explanation import Explanation
from service.queue.base import Lease
from service.store.base import BlobStore
from workers.parcels import Rendered


def prefix_of(lease: Lease) -> str:
    """Return where the holder of `lease` writes its results."""
    return paths.result(lease.job.tenant, lease.job.id, lease.token)


def deliver_files(rendered: Rendered, lease: Lease, store: BlobStore) -> None:
    """Write every artifact; nobody sees one before the job is settled.

    Raises
    ------
    StoreUnavailable, OutOfStorage
        Writing may be tried again: the same bytes go to the same paths.
    """
    prefix = prefix_of(lease)
    for files in rendered.files:
        for file in files:
            store.put(paths.artifact(prefix, file.artifact.name), file.path)


def deliver_document(explanation: Explanation, lease: Lease, store: BlobStore) -> str:
    """Seal and write ``job.json`` and return the prefix, ready to be published.

    Raises
    ------
    ResultDamaged
        The document, or a map in it, is not of the lease's job.
    StoreUnavailable, OutOfStorage
        Writing may be tried again.
    """
    prefix = prefix_of(lease)
    store.put(paths.document(prefix), documents.written(explanation, lease.job.id))
    return prefix
