"""UIDs of derived objects: the same content gives the same UID, and no other does.

A series is named by the request's digest, an instance by that and the digest of its pixels and
identity, to which the time of its job belongs: its header tells that.
"""

import uuid

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "derived.objects.whylight")
ROOT = "2.25."
"""Root of UIDs derived from UUIDs (PS3.5 B.2); at most 44 characters in all."""


def derived_uid(*parts: str) -> str:
    """Return the UID of what `parts` name, in this order."""
    canonical = "\x1f".join(parts)  # the unit separator stands in no part
    return ROOT + str(uuid.uuid5(NAMESPACE, canonical).int)


def series_uid(request_digest: str, study_instance_uid: str, kind: str) -> str:
    """Return the UID of the series that holds a request's objects of one kind."""
    return derived_uid("series", request_digest, study_instance_uid, kind)


def instance_uid(series_instance_uid: str, identity: str, pixel_digest: str) -> str:
    """Return the UID of one object, by its identity within the series and its pixels."""
    return derived_uid("instance", series_instance_uid, identity, pixel_digest)
