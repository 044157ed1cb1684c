"""What is asked of the service, as values. Resources make them, a client sends them.

Each verb is written once, as a method that returns a Call, and decorated with what becomes of it:

                   on a resource of Circadian     of AsyncCircadian
    verb           the answer                     an awaitable of it
    listing        an iterator over all pages     an async iterator over all pages
    following      an iterator over events        an async iterator over events
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from services.client.answers import Answer, Event, Page
from services.client.errors import Foreign, NotSent, Unreachable, error_of

Json = dict[str, Any]
T = TypeVar("T")
A = TypeVar("A", bound=Answer)
P = ParamSpec("P")
PAGE = 100
"""Items asked for at once, the most that the service gives."""
IDEMPOTENCY = "Idempotency-Key"


@dataclass(frozen=True)
class Call(Generic[T]):
    """One request, and how its answer is read."""

    method: str
    path: str
    read: Callable[[httpx.Response], T]
    body: Any = None
    params: Json = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    repeatable: bool = True
    """Whether it may be sent again where nobody knows what became of it."""

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        return http.build_request(self.method, self.path, json=self.body, params=self.params or None, headers=self.headers)

    def answer(self, outcome: httpx.Response | httpx.TransportError, url: str) -> T:
        """Of what came back last. Raises ClientError."""
        if isinstance(outcome, httpx.TransportError):
            raise unreachable(url, outcome) from outcome
        if outcome.is_error:
            raise error_of(outcome)
        try:
            return self.read(outcome)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the body"
            raise Foreign(
                f"{url}{self.path} answers, but not as this service does ({where}: {first['msg']}); check the URL"
            ) from error

    def page(self, after: str | None) -> Call[T]:
        """The same list from there on."""
        return replace(self, params=self.params | {"limit": PAGE} | ({} if after is None else {"after": after}))


def unreachable(url: str, error: httpx.TransportError) -> Unreachable:
    return Unreachable(f"nothing answers at {url} ({str(error) or type(error).__name__})")


class Blocking(ABC):
    """Sends calls and waits."""

    @abstractmethod
    def send(self, call: Call[T]) -> T: ...

    @abstractmethod
    def pages(self, call: Call[Page[A]]) -> Iterator[A]: ...

    @abstractmethod
    def follow(self, call: Call[None]) -> Iterator[Event]: ...


class Awaiting(ABC):
    """Sends calls, and lets others run meanwhile."""

    @abstractmethod
    async def send(self, call: Call[T]) -> T: ...

    @abstractmethod
    def pages(self, call: Call[Page[A]]) -> AsyncIterator[A]: ...

    @abstractmethod
    def follow(self, call: Call[None]) -> AsyncIterator[Event]: ...


S = TypeVar("S", Blocking, Awaiting)


class Resource(Generic[S]):
    """A family of verbs that are sent by one client."""

    def __init__(self, sender: S) -> None:
        self.sender: S = sender


class _Bound(Generic[P, T]):
    """A method that makes a call, which is sent when it is called on a client's resource."""

    how: str

    def __init__(self, make: Callable[Concatenate[Any, P], Call[T]]) -> None:
        self.make = make
        self.__doc__ = make.__doc__

    def bind(self, resource: Any) -> Any:
        if resource is None:
            return self

        @wraps(self.make)
        def sent(*args: P.args, **more: P.kwargs) -> Any:
            return getattr(resource.sender, self.how)(self.make(resource, *args, **more))

        return sent


class verb(_Bound[P, T]):  # noqa: N801  # read as a decorator
    how = "send"

    @overload
    def __get__(self, resource: Resource[Blocking], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, resource: Resource[Awaiting], owner: type) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, resource: Any, owner: type) -> Any:
        return self.bind(resource)


class listing(Generic[P, A], _Bound[P, Page[A]]):  # noqa: N801
    how = "pages"

    @overload
    def __get__(self, resource: Resource[Blocking], owner: type) -> Callable[P, Iterator[A]]: ...
    @overload
    def __get__(self, resource: Resource[Awaiting], owner: type) -> Callable[P, AsyncIterator[A]]: ...
    def __get__(self, resource: Any, owner: type) -> Any:
        return self.bind(resource)


class following(_Bound[P, None]):  # noqa: N801
    how = "follow"

    @overload
    def __get__(self, resource: Resource[Blocking], owner: type) -> Callable[P, Iterator[Event]]: ...
    @overload
    def __get__(self, resource: Resource[Awaiting], owner: type) -> Callable[P, AsyncIterator[Event]]: ...
    def __get__(self, resource: Any, owner: type) -> Any:
        return self.bind(resource)


# How calls are made


def get(path: str, model: type[A], **params: Any) -> Call[A]:
    return Call("GET", path, reading(model), params=given(**params))


def post(path: str, model: type[A], body: Any = None, *, key: str | None = None, keeps: bool = True) -> Call[A]:
    """With an Idempotency-Key, one of its own unless given. `keeps`: whether the service keeps answers of this route under it."""
    return Call("POST", path, reading(model), body, headers={IDEMPOTENCY: key or uuid.uuid4().hex}, repeatable=keeps)


def patch(path: str, model: type[A], body: Json, etag: str | None) -> Call[A]:
    headers = {IDEMPOTENCY: uuid.uuid4().hex} | ({} if etag is None else {"If-Match": etag})
    return Call("PATCH", path, reading(model), body, headers=headers)


def delete(path: str, etag: str | None = None) -> Call[None]:
    return Call("DELETE", path, nothing, headers={} if etag is None else {"If-Match": etag})


def reading(model: type[A]) -> Callable[[httpx.Response], A]:
    def read(response: httpx.Response) -> A:
        answer = model.model_validate_json(response.content)
        answer._etag = response.headers.get("etag")
        return answer

    return read


def nothing(_: httpx.Response) -> None:
    return None


def given(**fields: Any) -> Json:
    """Those that were given."""
    return {name: value for name, value in fields.items() if value is not None}


def at(*parts: str) -> str:
    """A path below /v1, of words and ids. Raises NotSent for an id that would make another path of it."""
    for part in parts:
        if part in ("", ".", ".."):
            raise NotSent(f"{part!r} is no id or name; give one, as the list of {parts[0]} shows them")
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)
