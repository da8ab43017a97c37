"""A node's life: listen, recover, serve, drain, stop.

The HTTP server comes first, so that `/livez` answers during recovery. A stop refuses new requests,
lets those under way finish, hands leadership over and flushes. A replica that fails ends the
process at once: after a failed write or fsync nobody knows what reached the disk, so it must not
say another word.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
from typing import Final, NoReturn

from ..replication.config import Limits, ReplicaConfig, Timing
from ..replication.replica import Replica
from ..storage.errors import StorageError
from .config import NodeConfig
from .http.context import Context
from .http.server import HttpServer
from .logs import LoopErrors

logger = logging.getLogger(__name__)

EXIT_DONE: Final = 0
EXIT_REFUSED: Final = 1
EXIT_REPLICA_FAILED: Final = 70
_OWN_FILES: Final = 1024
"""Room for the write-ahead log, peers, and segments: three for each stream that is written to."""
STOP_TIMEOUT_S: Final = 60.0
"""A checkpoint that takes longer is given up: the write-ahead log has everything."""


def replica_config(config: NodeConfig) -> ReplicaConfig:
    return ReplicaConfig(
        id=config.id,
        data=config.data,
        raft_address=config.raft,
        peers=config.peers,
        raft_advertise=config.cluster[config.id],
        joins=config.join,
        http_url=config.http_url,
        timing=Timing(
            append_period_s=config.append_period / 1000,
            election_timeout_s_min=config.election_timeout_min / 1000,
            election_timeout_s_max=config.election_timeout_max / 1000,
            check_quorum_s=config.check_quorum / 1000,
        ),
        limits=Limits(
            cache_bytes=config.cache_bytes,
            wal_segment_bytes=config.wal_segment_bytes,
            wal_retain_bytes=config.wal_retain_bytes,
            catchup_bytes_per_s=config.catchup_bytes_per_s,
            disk_reserve_bytes=config.disk_reserve,
            checkpoint_bytes=config.checkpoint_bytes,
            checkpoint_s=config.checkpoint_period / 1000,
            retention_period_s=config.retention_period / 1000,
            scrub_bytes_per_s=config.scrub_bytes_per_s,
            scrub_pause_s=config.scrub_pause / 1000,
            compaction_period_s=config.compaction_period / 1000,
            compaction_bytes_per_s=config.compaction_bytes_per_s,
        ),
    )


async def run_node(config: NodeConfig) -> int:
    """Run one node until SIGTERM or SIGINT; return the exit status of the process.

    Ends the process itself, with status 70, if the replica fails.
    """
    stop = asyncio.Event()
    _on_signals(stop)
    asyncio.get_running_loop().set_exception_handler(LoopErrors())
    _allow_files(2 * config.connections_max + _OWN_FILES)
    context = Context(config)
    try:
        server = await HttpServer.start(context)
    except OSError as error:
        logger.error("cannot listen for clients", extra={"http": config.http, "error": str(error)})
        return EXIT_REFUSED
    try:
        context.replica = await _recover(config, stop)
    except (OSError, StorageError) as error:
        logger.error("cannot start", extra={"data": config.data, "error": str(error)})
        await server.close()
        return EXIT_REFUSED
    logger.info(
        "node started",
        extra={"id": config.id, "http": config.http_url, "raft": config.raft, "data": config.data},
    )
    await stop.wait()
    await _stop(config, context.replica, server)
    return EXIT_DONE


async def _recover(config: NodeConfig, stop: asyncio.Event) -> Replica:
    """Start the replica; a signal meanwhile ends the process, as a crash would: recovery is made
    for that.
    """
    starting = asyncio.ensure_future(Replica.start(replica_config(config)))
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        logger.info("stopped during recovery")
        _exit(EXIT_DONE)
    replica = starting.result()
    replica.failed.add_done_callback(_replica_failed)
    return replica


async def _stop(config: NodeConfig, replica: Replica, server: HttpServer) -> None:
    logger.info("stopping", extra={"id": config.id})
    if not await server.drain(config.drain_timeout / 1000):
        logger.warning("requests under way were cut off", extra={"after_ms": config.drain_timeout})
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await replica.stop()
    except TimeoutError:
        logger.error("the replica did not stop in time", extra={"timeout_s": STOP_TIMEOUT_S})
        _exit(EXIT_REPLICA_FAILED)
    await server.close()
    logger.info("stopped", extra={"id": config.id})


def _allow_files(wanted: int) -> None:
    """Open as many files as may be: nobody knows how many streams there will be. Fewer than
    `wanted` are too few for a node whose clients take all the connections they may.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < wanted:
        logger.warning("few open files allowed", extra={"allowed": hard, "wanted": wanted})


def _on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


def _replica_failed(failed: asyncio.Future[BaseException]) -> None:
    if failed.cancelled():
        return
    logger.critical("the replica failed", exc_info=failed.result())
    _exit(EXIT_REPLICA_FAILED)


def _exit(status: int) -> NoReturn:
    """End the process without waiting for its threads: one may hang in the disk."""
    logging.shutdown()
    os._exit(status)
