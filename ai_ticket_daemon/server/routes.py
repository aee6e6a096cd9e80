"""What a route is, and which one a request asks for.

:mod:`.route_table` has those there are. A route is one value: adding one is to write its handler,
one value for the table and its place in ``docs/http-api.md``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ai_ticket_daemon.errors import ErrorCode, RequestRefused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from msgspec import Struct

    from ai_ticket_daemon.config.values.tokens import Scope
    from ai_ticket_daemon.server.response import Response, Streamed

    Handler = Callable[..., Awaitable[Response | Streamed]]
    """Called with the server context, the HTTP exchange, and the parameters of the path."""
    Shape = type[Struct] | str
    """A Struct, or the name of a shape in :mod:`.openapi.schemas`."""

UNMATCHED = "unmatched"
"""Stands for every path that is no route, so that no label ever holds what a client made up."""

OTHER_METHOD = "OTHER"

_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
)

EVERYWHERE = (
    ErrorCode.INVALID_REQUEST,
    ErrorCode.NOT_FOUND,
    ErrorCode.METHOD_NOT_ALLOWED,
    ErrorCode.INTERNAL_ERROR,
)
"""Codes that any request may meet, whatever its route."""

BEFORE_ANY_ROUTE = (
    (408, ErrorCode.REQUEST_TIMEOUT),
    (429, ErrorCode.RATE_LIMITED),
    (431, ErrorCode.INVALID_REQUEST),
    (501, ErrorCode.INVALID_REQUEST),
    (503, ErrorCode.QUEUE_FULL),
    (505, ErrorCode.INVALID_REQUEST),
)
"""What is answered before the route is known: the request is no valid HTTP, or finds no place."""


@dataclass(frozen=True, slots=True)
class Body:
    """What is sent, or what comes back, in one media type."""

    shape: Shape
    examples: Mapping[str, object]
    """Values by their names; of NDJSON and streams, their text."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a route answers with one status, errors left aside."""

    description: str
    bodies: Mapping[str, Body]
    """By media type."""
    headers: Mapping[str, Any] = field(default_factory=dict)
    """As OpenAPI describes them."""
    event_id_at: str | None = None
    """Where in the JSON the id of an event stands that other routes can be asked about."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A part of a request beside its body."""

    place: str
    """``path``, ``query`` or ``header``."""
    name: str
    schema: Mapping[str, Any]
    description: str
    example: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One thing a client can ask for."""

    path: str
    """With a name in braces where any text may stand: ``/event/{event_id}``."""
    method: str
    operation: str
    """Its name in the OpenAPI description."""
    summary: str
    handler: Handler
    answers: Mapping[int, Answer]
    """By status."""
    body: Mapping[str, Body] = field(default_factory=dict)
    """What is sent, by media type."""
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[ErrorCode, ...] = ()
    """What it may be answered besides its answers."""
    scopes: tuple[Scope, ...] = ()
    """Its caller needs one of them, where tokens are asked for. A route without any is open to
    everybody, and not limited."""
    is_batch: bool = False
    """Whether its body may be as long as that of a batch."""
    is_traced: bool = False
    """Whether a request is a span of the client's trace."""


@dataclass(frozen=True, slots=True)
class Place:
    """What there is at one path."""

    label: str
    """The path as the route writes it, fit for a metric's label."""
    by_method: Mapping[str, Route] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    """The parts of the path that the route names."""

    @property
    def takes_batches(self) -> bool:
        """Whether what is sent here may be as long as a batch."""
        return any(route.is_batch for route in self.by_method.values())

    def find(self, method: str) -> Route | None:
        """Return the route that takes ``method``; ``HEAD`` is taken wherever ``GET`` is."""
        return self.by_method.get("GET" if method == "HEAD" else method)

    def route(self, method: str) -> Route:
        """Return the route that takes exactly this method.

        Raises:
            RequestRefused: ``not_found`` or ``method_not_allowed``.
        """
        if not self.by_method:
            raise RequestRefused(
                ErrorCode.NOT_FOUND, "There is no such route; /openapi.json lists them all."
            )
        if (route := self.find(method)) is not None:
            return route
        allowed = sorted({*self.by_method, *(["HEAD"] if "GET" in self.by_method else [])})
        # A method that HTTP does not define is not repeated.
        named = method if method in _METHODS else "this method"
        raise RequestRefused(
            ErrorCode.METHOD_NOT_ALLOWED,
            f"{self.label} does not take {named}; use {', '.join(allowed)}.",
            details={"allowed": allowed},
        )


NOWHERE = Place(UNMATCHED)
"""Every path that is no route."""


class Routes:
    """Finds the route of a request.

    Args:
        routes: those there are.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        places: dict[str, dict[str, Route]] = {}
        for route in routes:
            places.setdefault(route.path, {})[route.method] = route
        self._exact = {
            path: Place(path, by_method) for path, by_method in places.items() if "{" not in path
        }
        self._patterns = [
            (_pattern_of(path), path, by_method)
            for path, by_method in places.items()
            if "{" in path
        ]

    def at(self, path: str) -> Place:
        """Return what there is at exactly this path."""
        place = self._exact.get(path)
        if place is not None:
            return place
        for pattern, label, by_method in self._patterns:
            if (match := pattern.fullmatch(path)) is not None:
                return Place(label, by_method, match.groupdict())
        return NOWHERE


def _pattern_of(path: str) -> re.Pattern[str]:
    """Return what the paths look like that ``path`` stands for; a parameter is one segment."""
    parts = re.split(r"\{(\w+)\}", path)
    return re.compile(
        "".join(
            f"(?P<{part}>[^/]+)" if is_name else re.escape(part)
            for is_name, part in ((index % 2, part) for index, part in enumerate(parts))
        )
    )


def method_label(method: str) -> str:
    """Return ``method`` if HTTP defines it, fit for a metric's label."""
    return method if method in _METHODS else OTHER_METHOD
