"""Finds the row of the route table for a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Literal

from aiohttp.web import StreamResponse
from msgspec import Struct, structs

from balancer.access import Role, RouteClass
from balancer.errors import MethodNotAllowed, RouteNotFound
from balancer.http.answers import error_answer
from balancer.http.calls import Answer
from balancer.http.deprecation import Deprecation
from balancer.http.exchange import ErrorForm, Exchange, Port, Wiring

MAX_SEGMENTS = 8
"""Of a path, that are looked at for how its errors look; no route has more."""

Handler = Callable[[Exchange, Wiring], Awaitable[StreamResponse]]
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


class Route(Struct, frozen=True, kw_only=True):
    """One row of the table. `min_role` is what a caller needs where credentials are configured;
    `aliases` serve the same.

    `limit_class` groups routes for limits on requests; `is_quiet` keeps probes out of the log.
    A segment `{name}` of the path takes any one segment, `{name...}` any number of them.
    """

    ports: tuple[Port, ...]
    method: Method
    path: str
    handler: Handler
    min_role: Role = "public"
    limit_class: RouteClass
    aliases: tuple[str, ...] = ()
    open_role: Role | None = None
    """What a caller needs where none are; None: callers on this host may do everything, and others
    what `user`s may."""
    takes_session: bool = False
    """Whether the dashboard's cookie may stand for a key."""
    is_socket: bool = False
    has_head: bool = True
    """Whether HEAD is answered where GET is."""
    is_quiet: bool = False
    error_form: ErrorForm = error_answer
    """How errors look on this route: as its family of APIs has them."""
    deprecation: Deprecation | None = None
    """Since when it should not be called any more, and when it goes."""
    query: tuple[str, ...] = ()
    """The query parameters it takes; any other is refused where operators call."""
    answer: Answer | None = None
    """What it answers as a value, for those that call it over a live socket by its `call`."""
    call: str = ""
    takes: tuple[str, ...] = ()
    """What it takes in a body, beside the query."""

    def role_needed(self, *, is_open: bool) -> Role:
        """Of a caller; `is_open`: nobody has to sign in."""
        if not is_open:
            return self.min_role
        if self.open_role is not None:
            return self.open_role
        return "public" if self.min_role == "user" else self.min_role

    @property
    def params(self) -> tuple[str, ...]:
        """Everything that a call of it may name."""
        places = tuple(part.strip("{.}") for part in self.path.split("/") if part.startswith("{"))
        return (*places, *self.query, *self.takes)


class Router:
    """The routes of one socket, which may serve both ports' tables: where both have a row for the
    same method and path, the first port's is meant. Paths match whole, plain ones first; HEAD is
    answered where GET is."""

    def __init__(self, routes: Sequence[Route], *, ports: Sequence[Port]) -> None:
        self._by_path: dict[str, dict[str, Route]] = {}
        for port in ports:
            for path, methods in _table(routes, port).items():
                self._by_path[path] = {**methods, **self._by_path.get(path, {})}
        self._error_forms = _error_forms(self._by_path)
        templates = [
            (tuple(path.split("/")), methods)
            for path, methods in self._by_path.items()
            if "{" in path
        ]
        # what takes all the rest comes last, or it would take other templates' paths, too
        self._templates = sorted(templates, key=lambda row: row[0][-1].endswith("...}"))

    def match(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The row for a request, and what stands in its path's places. Raises `RouteNotFound` or
        `MethodNotAllowed`."""
        methods, places = self._by_path.get(path), dict[str, str]()
        if methods is None or "{" in path:
            methods, places = self._match_template(tuple(path.split("/")))
        if methods is None:
            raise RouteNotFound(
                f"there is no {path[:200]!r} on this port; GET /docs shows what it has"
            )
        route = methods.get(method)
        if route is None:
            allowed = sorted(methods)
            raise MethodNotAllowed(
                f"{path} takes {', '.join(allowed)}, not {method[:20]}",
                details={"allowed": allowed},
            )
        return route, places

    def error_form(self, path: str) -> ErrorForm:
        """How an error looks under this path, whether or not there is a route: as on the routes of
        the longest part of it that only routes of one family begin with."""
        form = self._error_forms.get(path)
        if form is not None:
            return form
        segments = path.split("/", MAX_SEGMENTS)[:MAX_SEGMENTS]
        for end in range(len(segments), 1, -1):
            beginning = "/".join(segments[:end])
            form = self._error_forms.get(beginning)
            if form is not None and beginning != "/":
                return form
        return error_answer

    @staticmethod
    def _gathered(segments: tuple[str, ...], template: tuple[str, ...]) -> tuple[str, ...]:
        """A request's segments, those as one for which the template has `{name...}`."""
        for start, name in enumerate(template):
            more = len(segments) - len(template)
            if name.endswith("...}") and more > 0:
                end = start + more + 1
                return (*segments[:start], "/".join(segments[start:end]), *segments[end:])
        return segments

    def _match_template(
        self, path_segments: tuple[str, ...]
    ) -> tuple[dict[str, Route] | None, dict[str, str]]:
        for template, methods in self._templates:
            segments = self._gathered(path_segments, template)
            if len(template) != len(segments):
                continue
            places = {}
            for name, given in zip(template, segments, strict=True):
                if name.startswith("{") and given:
                    places[name.strip("{.}")] = given
                elif name != given:
                    break
            else:
                return methods, places
        return None, {}


def _table(routes: Iterable[Route], port: Port) -> dict[str, dict[str, Route]]:
    """One port's rows, by path and method."""
    by_path: dict[str, dict[str, Route]] = {}
    for route in routes:
        if port not in route.ports:
            continue
        route = _as_on(port, route)
        for path in _paths_of(route):
            methods = by_path.setdefault(path, {})
            if route.method in methods:
                raise ValueError(f"{route.method} {path} has two rows on port {port}")
            methods[route.method] = route
            if route.method == "GET" and route.has_head and not route.is_socket:
                methods["HEAD"] = route
    return by_path


def _as_on(port: Port, route: Route) -> Route:
    """What `user`s may call is on the management port for operators, and the dashboard's cookie is
    good there alone."""
    if port == "inference":
        return route
    route = structs.replace(route, takes_session=True)
    if route.min_role != "user":
        return route
    return structs.replace(route, min_role="admin", open_role=route.open_role or "public")


def _error_forms(by_path: dict[str, dict[str, Route]]) -> dict[str, ErrorForm]:
    """By each path, and by each beginning of paths that all have the same form. A row's own path
    has its own form, whatever lies under it."""
    own = {path: next(iter(rows.values())).error_form for path, rows in by_path.items()}
    under: dict[str, set[ErrorForm]] = {}
    for path, form in own.items():
        segments = path.split("/")
        for end in range(2, len(segments)):
            under.setdefault("/".join(segments[:end]), set()).add(form)
    shared = {path: next(iter(forms)) for path, forms in under.items() if len(forms) == 1}
    return shared | own


def _paths_of(route: Route) -> list[str]:
    """What is under /v1 is under /v2, too: there is no other second version yet."""
    paths = [route.path, *route.aliases]
    return paths + ["/v2" + path[3:] for path in paths if path.startswith("/v1/")]
