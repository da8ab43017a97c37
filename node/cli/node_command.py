"""`cute node`: one node in the foreground."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from ..config import SETTINGS, ConfigError, NodeConfig, Setting, default_of, load_config
from ..units import KiB, MiB

_EXAMPLE = """\b
Example, three nodes on one machine, this being the first:
  cute node --id n1 --data /tmp/n1 --http 127.0.0.1:8101 \\
    --cluster n1=127.0.0.1:9101,n2=127.0.0.1:9102,n3=127.0.0.1:9103

\b
The same from a file, with one setting changed by a variable:
  CUTE_LOG_LEVEL=debug cute node --config n1.toml
"""


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give the command one option per setting."""
    for setting in reversed(list(SETTINGS.values())):
        command = _option(setting)(command)
    return command


def _option(setting: Setting) -> Callable[[Callable[..., None]], Callable[..., None]]:
    about = f"{setting.help} [{setting.variable}{_shown_default(setting)}]"
    if not setting.metavar:
        flags = f"{setting.flag}/--no-{setting.flag[2:]}"
        return click.option(flags, setting.name, default=None, help=about)
    return click.option(setting.flag, setting.name, metavar=setting.metavar, help=about)


def _shown_default(setting: Setting) -> str:
    default = default_of(setting.name)
    if default is None or isinstance(default, bool):
        return ""
    if isinstance(default, tuple):
        default = f"{default[0]}:{default[1]}"
    elif isinstance(default, int):
        default = _shown_number(default, setting.metavar)
    return f"; default {default}"


def _shown_number(number: int, metavar: str) -> str:
    if metavar == "TIME":
        return f"{number}ms" if number % 1000 else f"{number // 1000}s"
    if metavar == "SIZE":
        return f"{number // MiB}MiB" if number % MiB == 0 else f"{number // KiB}KiB"
    return str(number)


@click.command("node", epilog=_EXAMPLE)
@click.option("--config", metavar="FILE", help="Settings as TOML. [CUTE_CONFIG]")
@_with_settings
def node(**flags: Any) -> None:
    """Run one node in the foreground until SIGTERM or SIGINT.

    Every setting is a flag, a variable CUTE_… and a key of the file; a flag beats a variable, that
    beats the file. Exit status 0 after a stop, 1 if the node cannot start, 2 for wrong settings, 70
    if its disk or its log failed.
    """
    try:
        config = load_config(flags, os.environ)
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    sys.exit(_run(config))


def _run(config: NodeConfig) -> int:
    import asyncio

    with quick_imports():
        from ..logs import configure_logging
        from ..node import run_node

    configure_logging(config.log_level, config.log_format)
    return asyncio.run(run_node(config))


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import without two things that take a fifth of a start and are of no use here.

    The collection of garbage: what is imported stays, and is not looked at later either. And the
    system's certificates, which aiohttp reads twice while it is imported: `http/forward.py` reads
    them when it needs them.
    """
    kept = {name: os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")}
    os.environ.update(dict.fromkeys(kept, os.devnull))
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
        for name, value in kept.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value
