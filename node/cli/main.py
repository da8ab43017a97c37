"""The console script `cute`.

A command's module is imported when the command is called, so that `cute --help` and a shell's
completion load neither aiohttp nor rich.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 outcome unknown (it may have happened),
4 no node reachable, 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import click

FAILED, WRONG_USAGE, OUTCOME_UNKNOWN, UNREACHABLE, INTERRUPTED = 1, 2, 3, 4, 130


class Command(NamedTuple):
    target: str
    """`module:attribute`, the module relative to this package."""
    summary: str


COMMANDS = {
    "bench": Command(".bench_command:bench", "Measure a cluster under load."),
    "cluster": Command(".cluster_command:cluster", "Members, leader, progress; leadership."),
    "get": Command(".search_command:get", "Print the newest record of a key."),
    "group": Command(".group_command:group", "Consumer groups: offsets, lag, leases."),
    "index": Command(".index_command:index", "Secondary indexes: create, list, remove."),
    "log": Command(".log_command:log", "Look into a stopped node's files; verify them."),
    "node": Command(".node_command:node", "Run one node in the foreground."),
    "produce": Command(".produce_command:produce", "Append records, one per line."),
    "read": Command(".read_command:read", "Print records and stop."),
    "search": Command(".search_command:search", "Print the records that an index finds."),
    "sim": Command(".sim_command:sim", "Simulate clusters under faults, seed by seed."),
    "stream": Command(
        ".streams_command:stream", "Create, list, show, alter, trim and remove streams."
    ),
    "tail": Command(".read_command:tail", "Print records as they arrive, for ever."),
    "up": Command(".up_command:up", "Run a local cluster of real nodes."),
}


class LazyGroup(click.Group):
    """A group that imports a command when it is called and lists all without importing any."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].target.partition(":")
        command = getattr(importlib.import_module(module, "cute_logger.node.cli"), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: cute up, and in another terminal: cute stream create orders",
)
@click.option(
    "--server",
    metavar="URL[,URL…]",
    help="Nodes to ask; one that can be reached is enough. Also CUTE_SERVER.",
)
@click.version_option(package_name="cute-logger-cluster", prog_name="cute")
@click.pass_context
def cute(ctx: click.Context, server: str | None) -> None:
    """A small, dependable, replicated distributed log."""
    ctx.obj = server


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `cute` and exit."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run `cute` with `arguments` (by default the process's) and return its exit code."""
    try:
        result = cute.main(arguments, prog_name="cute", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has had enough. What is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        code = _exit_code_of(error)
        if code is None:
            raise
        click.echo(f"cute: {error}", err=True)
        return code


def _exit_code_of(error: Exception) -> int | None:
    """Return the exit code for a failure one may meet; None for a bug."""
    from ...client import errors

    if isinstance(error, errors.ClusterUnreachable):
        return UNREACHABLE
    if isinstance(error, errors.OutcomeUnknown):
        return OUTCOME_UNKNOWN
    if isinstance(error, errors.Refused | OSError):
        return FAILED
    return None


if __name__ == "__main__":
    main()
