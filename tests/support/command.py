"""The command `cute` as a real process."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass

CUTE = [sys.executable, "-P", "-m", "cute_logger.node.cli.main"]


@dataclass(frozen=True, slots=True)
class Finished:
    code: int
    stdout: bytes
    stderr: str


async def start_cute(*arguments: str, **variables: str) -> asyncio.subprocess.Process:
    """Start `cute` with pipes for everything and no CUTE_ variables but these."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("CUTE_")}
    return await asyncio.create_subprocess_exec(
        *CUTE,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=kept | variables,
    )


async def cute(*arguments: str, stdin: bytes = b"", **variables: str) -> Finished:
    """Run `cute` to its end, within 60 s."""
    process = await start_cute(*arguments, **variables)
    try:
        async with asyncio.timeout(60):
            stdout, stderr = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Finished(process.returncode, stdout, stderr.decode())
