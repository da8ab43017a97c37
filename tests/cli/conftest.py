"""Nodes that play a script."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.scripted_node import ScriptedNode


@pytest.fixture
async def node() -> AsyncIterator[ScriptedNode]:
    scripted = ScriptedNode()
    await scripted.start()
    yield scripted
    await scripted.stop()
