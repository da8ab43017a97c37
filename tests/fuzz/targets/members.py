"""The list of members in a config entry: `replication.members`."""

from __future__ import annotations

import msgspec

from cute_logger.replication.commands import BadEntry
from cute_logger.replication.members import (
    Config,
    Members,
    decode_config,
    encode_config,
    is_one_step,
    next_step,
)
from fuzz.choices import Choices, packed, type_of

_CONFIG = type_of(Config)


def target(data: bytes) -> None:
    """Any bytes are a list of members or a BadEntry; a list means the same written again."""
    choices = Choices(data)
    configs = []
    for _ in range(1 + choices.below(3)):
        payload = packed(choices, _CONFIG) if choices.flag() else choices.binary(255)
        try:
            configs.append(decode_config(payload))
        except BadEntry:
            continue
    members = Members("a", "cafe", Config(()))
    for index, config in enumerate(configs, 1):
        assert decode_config(encode_config(config)) == config
        members.add(index, config)
        _use(members, config)
    for config in configs:
        is_one_step(configs[0], config)


def _use(members: Members, config: Config) -> None:
    assert members.newest == config
    assert members.is_listed == (config.get("a") is not None)
    assert members.is_voter <= members.is_listed
    heard = {member.id: "cafe" for member in config.members}
    step = next_step(config, heard, lambda peer: True)
    assert step is None or decode_config(msgspec.msgpack.encode(step)) == step
