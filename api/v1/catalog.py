"""The catalog: methods, checks and formats as the workers publish them."""

from fastapi import APIRouter, Depends

from api.auth import needs
from api.context import Here
from api.problems import answers
from api.v1.wire import MethodsBody
from service.domain.catalog import MethodEntry
from service.errors.requests import UnknownMethod
from service.keys import Scope

router = APIRouter(
    prefix="/v1/methods", tags=["catalog"], dependencies=[Depends(needs(Scope.MODELS_READ))]
)


@router.get("", operation_id="listMethods", summary="List methods", responses=answers())
def index(here: Here) -> MethodsBody:
    """List every method with the JSON schema of its parameters, every check and format."""
    catalog = here.backends.fleet.catalog()
    return MethodsBody(
        methods=catalog.methods,
        formats=catalog.formats,
        measures=catalog.measures,
        unavailable=catalog.unavailable,
    )


@router.get(
    "/{name}",
    operation_id="getMethod",
    summary="Tell of a method",
    responses=answers(UnknownMethod),
)
def show(name: str, here: Here) -> MethodEntry:
    """Tell what a method does, needs and costs, and where it misleads."""
    methods = here.backends.fleet.catalog().methods
    for each in methods:
        if each.name == name:
            return each
    raise UnknownMethod(
        "There is no such method; 'methods' lists those there are.",
        methods=[each.name for each in methods],
    )
