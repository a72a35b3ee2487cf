"""What was measured of methods on models: certificates and calibrations, in the store."""

from service.domain.certificate import MethodRecord
from service.records import Records
from service.store.base import BlobStore


class MethodRecords(Records[MethodRecord]):
    """The certificates of an installation."""

    def __init__(self, store: BlobStore) -> None:
        super().__init__(store, MethodRecord, "models/certificates")
