"""Who calls: the tenant and the rights come from the API key and from nothing else."""

from collections.abc import Callable
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.context import gateway
from service.errors.requests import Forbidden, Unauthenticated
from service.keys import Caller, KeyRecord, Scope

SCHEME = HTTPBearer(
    scheme_name="apiKey",
    bearerFormat="wl_{environment}_{id}_{secret}",
    description="An API key, made with `whylight keys create`.",
    auto_error=False,
)


def holder(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(SCHEME)],
) -> KeyRecord:
    """Return the record of the caller's key; `Unauthenticated` without one that holds."""
    if credentials is None:
        raise Unauthenticated("Send a valid API key as 'Authorization: Bearer wl_...'.")
    return gateway(request).backends.keys.verify(credentials.credentials)


def needs(scope: Scope) -> Callable[..., Caller]:
    """Return a dependency: the caller, if the key holds and has the scope.

    Raises
    ------
    Unauthenticated
        No key, or none that holds.
    Forbidden
        The key lacks the scope.
    """

    def caller(record: Annotated[KeyRecord, Depends(holder)]) -> Caller:
        if scope not in record.scopes:
            raise Forbidden("The API key lacks a scope that this needs.", scope=scope.value)
        return Caller(tenant=record.tenant, key=record.id)

    return caller


KeyHolder: Final = Depends(holder)
"""Any key will do, whatever its scopes."""

StudyReader = Annotated[Caller, Depends(needs(Scope.STUDIES_READ))]
StudyWriter = Annotated[Caller, Depends(needs(Scope.STUDIES_WRITE))]
Reader = Annotated[Caller, Depends(needs(Scope.EXPLANATIONS_READ))]
Writer = Annotated[Caller, Depends(needs(Scope.EXPLANATIONS_WRITE))]
ModelAdmin = Annotated[Caller, Depends(needs(Scope.MODELS_ADMIN))]
