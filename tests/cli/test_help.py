from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest

from cute_logger.node.cli.main import COMMANDS, LazyGroup
from cute_logger.node.cli.main import cute as group


def all_commands() -> list[tuple[str, ...]]:
    context = click.Context(group)
    names: list[tuple[str, ...]] = []
    assert isinstance(group, LazyGroup)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        names.append((name,))
        if isinstance(command, click.Group):
            names += [(name, inner) for inner in command.list_commands(context)]
    return names


@pytest.mark.parametrize("words", all_commands(), ids=" ".join)
def test_every_help_shows_an_example(words: tuple[str, ...]) -> None:
    command: click.Command | None = group
    context = click.Context(group, info_name="cute")
    for word in words:
        assert isinstance(command, click.Group)
        command = command.get_command(context, word)
        assert command is not None
        context = click.Context(command, info_name=word, parent=context)
    assert command is not None
    text = command.get_help(context)
    assert f"cute {' '.join(words)}" in text.split("xample", 1)[1]


def test_help_lists_every_command_without_loading_aiohttp_or_rich() -> None:
    script = (
        "import sys; from cute_logger.node.cli.main import run; code = run(['--help']);"
        "print(sorted({'aiohttp', 'rich', 'msgpack'} & set(sys.modules)), code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30
    )
    assert done.stdout.splitlines()[-1] == "[] 0"
    for name in COMMANDS:
        assert f"  {name} " in done.stdout


def test_a_node_loads_only_what_it_serves_with() -> None:
    """Three nodes that start together share the time this takes."""
    script = (
        "import gc, os, sys; from cute_logger.node.cli import node_command\n"
        "before = dict(os.environ)\n"
        "with node_command.quick_imports(): import cute_logger.node.node\n"
        "spared = {'rich', 'prometheus_client', 'tomllib', 'cute_logger.client'}\n"
        "print(sorted(spared & set(sys.modules)), os.environ == before, gc.isenabled())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "SSL_CERT_FILE": "/etc/own.pem"},
    )
    assert (done.stdout, done.stderr) == ("[] True True\n", "")


def test_up_leaves_the_processors_to_its_nodes() -> None:
    script = (
        "import sys, cute_logger.node.cli.up_command;"
        "print(sorted({'aiohttp', 'rich', 'msgpack', 'msgspec'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_commands_that_are_not_built_are_not_listed() -> None:
    built = {"cluster", "get", "group", "index", "log", "node", "produce", "read", "search", "sim"}
    built |= {"bench", "stream", "tail", "up"}
    assert set(COMMANDS) == built
