"""Which requests were answered how and how fast, by route: the address's template, never a name."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from ...replication.measures import Durations

WAITED: Final = web.RequestKey("waited", bool)
"""On requests that waited for something to happen."""
BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 10.0)
_NO_ROUTE: Final = ("unmatched", "any")


class Traffic:
    """Bounded by the number of routes: what no route takes counts as one."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str, str], int] = {}
        """By route, method and class of status; the class is `gone` if nobody took the answer."""
        self.durations: dict[tuple[str, str], Durations] = {}
        """By route and method; reads that waited for records are left out."""

    def count(
        self, request: web.Request, response: web.StreamResponse | None, seconds: float
    ) -> None:
        route = _route(request)
        self.count_answer(route, None if response is None else response.status)
        if WAITED not in request:
            self.time(route, seconds)

    def count_answer(self, route: tuple[str, str], status: int | None) -> None:
        """`status` None: nobody took it."""
        key = (*route, "gone" if status is None else f"{status // 100}xx")
        self.requests[key] = self.requests.get(key, 0) + 1

    def time(self, route: tuple[str, str], seconds: float) -> None:
        durations = self.durations.get(route)
        if durations is None:
            durations = self.durations[route] = Durations(BOUNDS_S)
        durations.add(seconds)


def _route(request: web.Request) -> tuple[str, str]:
    resource = request.match_info.route.resource
    return _NO_ROUTE if resource is None else (resource.canonical, request.method)
