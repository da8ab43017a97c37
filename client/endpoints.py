"""The nodes a client knows, and which to ask next. Pure: the time comes in as an argument.

- A URL that was given stays for ever: nodes may advertise addresses this client cannot reach.
- A URL that was learnt from `/v1/cluster` is used while the cluster lists it.
- A node that failed is set aside for a while, and still asked when no other is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

ASIDE_S_FIRST = 1.0
ASIDE_S_MAX = 30.0
LEARN_INTERVAL_S = 5.0


@dataclass(slots=True)
class _Endpoint:
    url: str
    given: bool
    failures: int = 0
    aside_until: float = 0.0


class Endpoints:
    def __init__(self, urls: Sequence[str]) -> None:
        """Raises TypeError or ValueError if `urls` is not a list of http(s) base URLs."""
        if isinstance(urls, str) or not isinstance(urls, Sequence):
            raise TypeError("a list of URLs is wanted")
        if not urls:
            raise ValueError("at least one URL is needed")
        self._endpoints = {url: _Endpoint(url, given=True) for url in map(base_url, urls)}
        self._url_of: dict[str, str] = {}
        self._leader: str | None = None
        self._preferred: str | None = None
        self._term = 0
        self._learn_after = 0.0

    @property
    def urls(self) -> list[str]:
        return list(self._endpoints)

    @property
    def term(self) -> int:
        """The newest of which a leader is known; 0 before the first."""
        return self._term

    def candidates(self, now: float, *, leader_first: bool) -> list[str]:
        """Return every URL, best first.

        That is the leader if wanted and known, then the node that answered last, then the others
        in the order they were given; those set aside come last, the one due soonest first.
        """
        leader = self._url_of.get(self._leader or "") if leader_first else None

        def rank(endpoint: _Endpoint) -> tuple[float, bool, bool]:
            aside = endpoint.aside_until if endpoint.aside_until > now else 0.0
            return (aside, endpoint.url != leader, endpoint.url != self._preferred)

        return [endpoint.url for endpoint in sorted(self._endpoints.values(), key=rank)]

    def may_lead(self, url: str) -> bool:
        """Tell whether the node at `url` may be the leader: no other one is known to be."""
        leader = self._url_of.get(self._leader or "")
        return leader is None or leader == url

    def leads(self, node: str, url: str) -> None:
        """Take over that `node`, at `url`, is the leader."""
        self._leader = node
        try:
            known = self._url_of[node] = base_url(url)
        except ValueError:
            return
        self._endpoints.setdefault(known, _Endpoint(known, given=False))

    def answered(self, url: str, leader: str | None, term: int = 0) -> None:
        """Note that the node at `url` answered and which node it holds for the leader of `term`."""
        self._preferred = url
        self._leader = leader or None
        if leader and term > self._term:
            self._term = term
        if endpoint := self._endpoints.get(url):
            endpoint.failures = 0
            endpoint.aside_until = 0.0

    def declined(self, url: str) -> None:
        """Note that the node at `url` is alive but cannot serve now: the next call asks another."""
        if self._preferred == url:
            self._preferred = None

    def leave(self, now: float) -> None:
        """Set the node that answered last aside."""
        if self._preferred is not None:
            self.failed(self._preferred, now)

    def failed(self, url: str, now: float) -> None:
        """Set `url` aside: 1 s at first, doubled with every further failure, 30 s at most.

        What fails while it is aside was sent together with what failed first, and does not count.
        """
        if self._preferred == url:
            self._preferred = None
        endpoint = self._endpoints.get(url)
        if endpoint is not None and endpoint.aside_until <= now:
            pause = min(ASIDE_S_MAX, ASIDE_S_FIRST * 2 ** min(endpoint.failures, 16))
            endpoint.failures += 1
            endpoint.aside_until = now + pause

    def is_learning_due(self, now: float) -> bool:
        """Tell whether to ask `/v1/cluster`: a leader is named whose address is not known."""
        if self._leader is None or self._leader in self._url_of or now < self._learn_after:
            return False
        self._learn_after = now + LEARN_INTERVAL_S
        return True

    def learn(
        self, nodes: Iterable[tuple[str, str | None]], leader: str | None, term: int = 0
    ) -> None:
        """Take over the ids and URLs that `/v1/cluster` lists; unusable URLs are left out."""
        self._url_of = {}
        for node, url in nodes:
            try:
                self._url_of[node] = base_url(url or "")
            except ValueError:
                continue
        listed = set(self._url_of.values())
        self._endpoints = {
            url: self._endpoints.get(url) or _Endpoint(url, given=False)
            for url in [*self._endpoints, *sorted(listed - self._endpoints.keys())]
            if url in listed or self._endpoints[url].given
        }
        self._leader = leader
        if leader:
            self._term = max(self._term, term)


def base_url(url: str) -> str:
    """Return `url` without a trailing slash. Raises TypeError, or ValueError if not http(s)."""
    if not isinstance(url, str):
        raise TypeError(f"a URL is a str, not {type(url).__name__}")
    parts = urlsplit(url.strip())
    try:
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment:
        raise ValueError(f"not the base URL of a node: {url!r}; http://HOST:PORT is wanted")
    return url.strip().rstrip("/")
