"""`cute bench`: what a cluster does under load, seen from its clients."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from .bench.case import Case, Kind
from .bench.runner import WorkerFailed, measure
from .bench.share import Outcome
from .bench.target import CuteTarget
from .connect import connected, json_option, on_loop, server_option, urls_of
from .output import print_json, print_table

COLUMNS = (
    "case", "records/s", "MB/s", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "client µs", "errors",
)  # fmt: skip


@click.command(epilog="Example: cute bench pipelined tail --value-bytes 100 --readers 20")
@click.argument(
    "kinds", nargs=-1, metavar="[CASE]…", type=click.Choice([kind.value for kind in Kind])
)
@click.option(
    "--value-bytes", "sizes", type=click.IntRange(8, 1_000_000), multiple=True, default=(1000,),
    show_default=True, help="Size of a value; may be given several times.",
)  # fmt: skip
@click.option("--producers", type=click.IntRange(1, 1000), default=1, show_default=True)
@click.option("--readers", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option(
    "--streams", type=click.IntRange(1, 1000), default=1, show_default=True,
    help="Each has at least one producer and one reader.",
)  # fmt: skip
@click.option(
    "--processes", type=click.IntRange(1, 64), default=1, show_default=True,
    help="Spread the producers, or readers, over so many processes.",
)  # fmt: skip
@click.option(
    "--rate", type=click.FloatRange(0.1, 1e6), default=500.0, show_default=True,
    help="Records per second of fixed-rate and tail, all producers together.",
)  # fmt: skip
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=5.0, show_default=True)
@click.option(
    "--records", type=click.IntRange(0), default=0,
    help="What catch-up reads of each stream.  [default: 128 MiB, 500,000 at most]",
)  # fmt: skip
@click.option("--linger-ms", type=click.FloatRange(0), default=5.0, show_default=True)
@click.option("--batch-bytes", type=click.IntRange(1), default=131_072, show_default=True)
@click.option("--in-flight", type=click.IntRange(1), default=5, show_default=True)
@server_option
@json_option
@on_loop
async def bench(
    kinds: Sequence[str],
    sizes: Sequence[int],
    server: str | None,
    as_json: bool,
    **settings: float,
) -> int:
    """Measure a cluster under load: all CASES, or those that are named.

    \b
    one-in-flight  each producer waits for the acknowledgement, then appends again
    pipelined      producers batch and send as fast as they may
    fixed-rate     appends at fixed times; latency counts from when each was due
    catch-up       readers read a stream from beginning to end
    tail           readers follow; latency from when an append was due to when it was read

    An acknowledgement means: on disk on a majority. Values are random bytes. The command works on
    streams of its own, named bench-…, and removes them; until then they need room on the nodes'
    disks. Client µs is the CPU time of the load itself per record. Exits 1 if anything failed.
    """
    cases = [_case(Kind(kind), size, settings) for kind in kinds or Kind for size in sizes]
    async with connected(server) as client:
        nodes = (await client.cluster()).nodes
    # The members first, to spread over them; they may advertise what cannot be reached from here.
    servers = [*dict.fromkeys([node.http for node in nodes if node.http] + urls_of(server))]
    outcomes = []
    for case in cases:
        admin = CuteTarget(servers, case)
        try:
            if sys.stderr.isatty():
                click.echo(f"{case.name} …", err=True)
            outcomes.append(await measure(case, servers, admin))
        except (TimeoutError, WorkerFailed) as failure:
            raise click.ClickException(f"{case.name}: {failure}") from failure
        finally:
            await admin.close()
    _print(outcomes, as_json=as_json)
    return 1 if any(outcome.errors for outcome in outcomes) else 0


def _case(kind: Kind, value_bytes: int, settings: dict[str, float]) -> Case:
    streams = settings["streams"]
    wanted = {
        **settings,
        "producers": max(settings["producers"], streams),
        "readers": max(settings["readers"], streams),
        "warm_up_s": min(1.0, settings["seconds"] / 4),
    }
    try:
        return Case(kind, value_bytes, **wanted)  # type: ignore[arg-type]
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _print(outcomes: Sequence[Outcome], *, as_json: bool) -> None:
    if as_json:
        print_json({"cases": [outcome.to_dict() for outcome in outcomes]})
    else:
        print_table(COLUMNS, [row_of(outcome) for outcome in outcomes])
    for outcome in outcomes:
        if outcome.error is not None:
            told = f"cute: {outcome.case.name}: {outcome.errors} failed, first: {outcome.error}"
            click.echo(told, err=True)


def row_of(outcome: Outcome) -> list[str]:
    latency = outcome.latency_ms or {}
    milliseconds = (latency.get(name) for name in ("p50", "p99", "p99.9", "max"))
    return [
        outcome.case.name,
        f"{outcome.records_per_s:,.0f}",
        f"{outcome.mb_per_s:,.1f}",
        *("-" if figure is None else f"{figure:.2f}" for figure in milliseconds),
        f"{outcome.client_cpu_us:.1f}",
        str(outcome.errors),
    ]
