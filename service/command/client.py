"""The command's own way to a gateway: HTTP with an API key, nothing else."""

from types import TracebackType
from typing import Any, Self

import httpx

from service.command.failure import CommandFailure
from service.wording import with_lists

PATIENCE = httpx.Timeout(90.0, connect=5.0)  # a long poll may last a minute


class Client:
    """Speaks to one gateway.

    Every method raises `CommandFailure` when the gateway does not answer or
    answers with a problem; the problem's own words are shown.

    Parameters
    ----------
    url
        Address of the gateway.
    key
        API key, or `None` for what needs none.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.url = url
        # no proxy, no .netrc: the key goes to this address alone
        self._http = httpx.Client(base_url=url, headers=headers, timeout=PATIENCE, trust_env=False)

    def __enter__(self) -> Self:
        """Return this client."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self._http.close()

    def json(self, verb: str, path: str, **options: Any) -> Any:
        """Return the JSON body of an answer; `None` if it has no body."""
        answer = self.ask(verb, path, **options)
        return answer.json() if answer.content else None

    def ask(self, verb: str, path: str, **options: Any) -> httpx.Response:
        """Return the answer to a request."""
        answer = self._send(verb, path, **options)
        if answer.is_error:
            raise CommandFailure(*_problem(answer))
        return answer

    def find(self, path: str) -> bytes | None:
        """Return what lies at `path`; `None` when there is nothing, or nothing any more."""
        answer = self._send("GET", path)
        if answer.status_code in {httpx.codes.NOT_FOUND, httpx.codes.GONE}:
            return None
        if answer.is_error:
            raise CommandFailure(*_problem(answer))
        return answer.content

    def answers(self, path: str) -> bool:
        """Whether the gateway answers a GET of `path` without an error."""
        try:
            return self._http.get(path).is_success
        except httpx.TransportError:
            return False

    def _send(self, verb: str, path: str, **options: Any) -> httpx.Response:
        """Return whatever a gateway answers."""
        try:
            return self._http.request(verb, path, **options)
        except httpx.TransportError:
            raise CommandFailure(
                f"No gateway answers at {self.url}.", "Start one with `whylight up`."
            ) from None


def _problem(answer: httpx.Response) -> tuple[str, str]:
    """Return title, detail and lists of a problem document, or what little there is."""
    try:
        document = answer.json()
        places = [f"  {each['pointer'] or '/'}: {each['detail']}" for each in document["errors"]]
        detail = with_lists(document["detail"], document["facts"])
        return f"{document['title']}.", "\n".join([detail, *places])
    except (ValueError, KeyError, TypeError):
        return f"The gateway answered {answer.status_code}.", ""
