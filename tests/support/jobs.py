"""Jobs for tests of queue and worker."""

import time

from service.domain.ids import new_id
from service.domain.job import Job

PACKAGE = "a" * 64
REQUEST = '{"study":"st_none","model":"small","methods":["saliency"]}'


def new_job(*, package: str = PACKAGE, tenant: str = "hospital", request: str = REQUEST) -> Job:
    """Return a job that nobody has queued yet."""
    return Job(
        id=new_id("ex"),
        tenant=tenant,
        created=int(time.time() * 1000),
        cost=100,
        request=request,
        model="small@1.0.0",
        package=package,
    )
