"""The options that name the cluster, and the client made from them.

The client is imported when one is made: `cute up` needs none.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from ...client import AsyncClient

DEFAULT_SERVERS = "http://127.0.0.1:8101,http://127.0.0.1:8102,http://127.0.0.1:8103"
"""The nodes that `cute up` starts."""

FIRST_CONTACT_S = 5.0
"""How long to look for any node at all; later calls are patient, because nodes come back."""

P = ParamSpec("P")
T = TypeVar("T")


def server_option(command: Callable[P, T]) -> Callable[P, T]:
    """Add `--server` to a command."""
    return click.option(
        "--server",
        metavar="URL[,URL…]",
        help="Nodes to ask. Else CUTE_SERVER, else what `cute up` starts.",
    )(command)


def json_option(command: Callable[P, T]) -> Callable[P, T]:
    """Add `--json` to a command."""
    return click.option("as_json", "--json", is_flag=True, help="Print JSON for programs.")(command)


def on_loop(command: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Run an async command on an event loop of its own."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return asyncio.run(command(*args, **kwargs))

    return run


def urls_of(server: str | None) -> list[str]:
    """Return the nodes a command was told to ask."""
    group_server = click.get_current_context().find_root().obj
    text = server or group_server or os.environ.get("CUTE_SERVER") or DEFAULT_SERVERS
    return [url.strip() for url in text.split(",") if url.strip()]


@asynccontextmanager
async def connected(server: str | None) -> AsyncIterator[AsyncClient]:
    """Return a client that has reached a node.

    Raises ClusterUnreachable if none answers within 5 s, click.UsageError for a wrong URL.
    """
    from ...client import AsyncClient, Unavailable

    try:
        client = AsyncClient(urls_of(server))
    except ValueError as error:
        raise click.UsageError(f"--server: {error}") from error
    async with client:
        with suppress(Unavailable):  # a node answered: what it lacks may come while it is tried
            await client.cluster(timeout=FIRST_CONTACT_S)
        try:
            yield client
        except (TypeError, ValueError) as error:
            raise click.UsageError(str(error)) from error
