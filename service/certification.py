"""Methods whose certificate for a model failed: refused unless a request says otherwise."""

from collections.abc import Collection, Sequence

from pydantic import JsonValue

from service.domain.catalog import CertificateEntry, ModelEntry
from service.domain.request import MethodChoice
from service.errors.requests import MethodUncertified


def demand_certified(
    choices: Sequence[MethodChoice], model: ModelEntry, weak: Collection[str]
) -> None:
    """Refuse a method that is known not to show what the model has learned.

    A certificate that is pending, or that nothing could be measured for,
    refuses nothing.

    Parameters
    ----------
    weak
        Methods that are weak evidence on any model, which are not named instead.

    Raises
    ------
    MethodUncertified
        The certificate of the parameters asked for failed; or that of the
        default parameters, where there is none of those asked for.
    """
    for place, choice in enumerate(choices):
        found = certificate_of(choice, model)
        if found is not None and found.outcome == "failed":
            others = [each for each in _recommended(model) if each not in weak]
            raise MethodUncertified(
                "On known cases this method's maps of this model hardly changed when its weights"
                f" or the class were exchanged. {_way_out(others)}",
                pointer=f"/methods/{place}/name",
                method=found.method,
                certificate=_told(found),
                methods=[*others],
            )


def certificate_of(choice: MethodChoice, model: ModelEntry) -> CertificateEntry | None:
    """Return the certificate that counts for a method as it is asked for, if there is one."""
    known = [each for each in model.certificates if each.method == choice.name]
    asked = asked_parameters(choice, model)
    return next((each for each in known if each.parameters == asked), _ordinary(choice, model))


def asked_parameters(choice: MethodChoice, model: ModelEntry) -> dict[str, JsonValue]:
    """Return a method's parameters on a model, its own defaults filled in where they are known."""
    ordinary = _ordinary(choice, model)
    given = {name: value for name, value in choice.parameters.items() if value is not None}
    return {**({} if ordinary is None else ordinary.parameters), **given}


def _ordinary(choice: MethodChoice, model: ModelEntry) -> CertificateEntry | None:
    """Return the certificate of the method with its default parameters."""
    known = (each for each in model.certificates if each.method == choice.name)
    return next((each for each in known if each.default), None)


def _recommended(model: ModelEntry) -> list[str]:
    """Return the methods to use instead, those first whose maps are supported most often.

    With their default parameters they passed, and are known not to be weak on this model.
    """
    shares = {
        each.method: each.calibration.supported
        for each in model.certificates
        if each.default and each.outcome == "passed"
        if each.calibration is not None and not each.calibration.weak
    }
    return sorted(shares, key=lambda method: -shares[method])


def _way_out(others: Sequence[str]) -> str:
    """Return what to do in place of asking for a method that failed."""
    if others:
        return "Choose one of 'methods', or set 'allow_uncertified'; the results will say so."
    return (
        "No other method is known to do better: of none has its certificate passed and were at"
        " least half of its maps supported. Choose another model, or set 'allow_uncertified';"
        " the results will say so."
    )


def _told(certificate: CertificateEntry) -> dict[str, JsonValue]:
    """Return a certificate's numbers as facts of a failure."""
    fields = {"id", "outcome", "similarities", "cases", "seeds", "protocol"}
    fields |= {"synthetic", "surrogate"}
    told: dict[str, JsonValue] = certificate.model_dump(mode="json", include=fields)
    return told
