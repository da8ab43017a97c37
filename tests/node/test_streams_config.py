from __future__ import annotations

import pytest

from cute_logger.node.streams_config import (
    STREAM_SETTINGS,
    SettingNotBuilt,
    StreamConfigError,
    complete_stream_config,
    parse_stream_config,
)

OTHER_THAN_DEFAULT = {
    "cleanup.policy": "compact",
    "min.compaction.lag.ms": 1,
    "max.compaction.lag.ms": 1,
    "min.cleanable.dirty.ratio": 0.6,
    "delete.retention.ms": 1,
    "immutable": True,
    "durability": "relaxed",
}


def test_no_settings_mean_all_the_defaults() -> None:
    config = complete_stream_config({})
    assert config["segment.bytes"] == 64 * 1024**2
    assert config["max.message.bytes"] == 1024**2
    assert config["retention.ms"] == -1
    assert config["durability"] == "quorum"
    assert list(config) == list(STREAM_SETTINGS)


def test_sizes_and_durations_take_units() -> None:
    config = complete_stream_config({"segment.bytes": "1MiB", "dedupe.window.ms": "2h"})
    assert config["segment.bytes"] == 1024**2
    assert config["dedupe.window.ms"] == 7_200_000


def test_a_number_as_text_is_that_number() -> None:
    assert complete_stream_config({"max.message.bytes": "1000"})["max.message.bytes"] == 1000


def test_every_setting_takes_its_own_default() -> None:
    defaults = complete_stream_config({})
    assert complete_stream_config(defaults) == defaults


def test_what_retention_keeps_is_set_by_age_bytes_or_count() -> None:
    given = {"retention.ms": "7d", "retention.bytes": "1GiB", "retention.records": 10}
    assert parse_stream_config(given | {"segment.ms": "1h"}) == {
        "retention.ms": 7 * 86_400_000,
        "retention.bytes": 1024**3,
        "retention.records": 10,
        "segment.ms": 3_600_000,
    }


@pytest.mark.parametrize("name", [n for n, s in STREAM_SETTINGS.items() if not s.is_built])
def test_a_setting_that_is_not_built_takes_nothing_but_its_default(name) -> None:
    with pytest.raises(SettingNotBuilt, match="not built yet") as refused:
        complete_stream_config({name: OTHER_THAN_DEFAULT[name]})
    assert refused.value.name == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("segment.bytes", 16 * 1024 - 1),
        ("segment.bytes", "2GiB"),
        ("segment.bytes", 1.5),
        ("segment.bytes", True),
        ("segment.bytes", "7d"),
        ("max.message.bytes", 0),
        ("max.message.bytes", 4 * 1024**2 + 1),
        ("dedupe.window.ms", 0),
        ("dedupe.window.ms", "31d"),
        ("dedupe.max.entries", 0),
        ("dedupe.max.entries", "many"),
        ("cleanup.policy", "shred"),
        ("immutable", 1),
        ("immutable", "yes"),
        ("min.cleanable.dirty.ratio", "nan"),
        ("min.cleanable.dirty.ratio", 1.1),
        ("min.cleanable.dirty.ratio", 10**400),
        ("compression.type", 0),
    ],
)
def test_a_value_out_of_range_is_refused(name, value) -> None:
    with pytest.raises(StreamConfigError) as refused:
        complete_stream_config({name: value})
    assert refused.value.name == name
    assert not isinstance(refused.value, SettingNotBuilt)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(StreamConfigError, match=r"'segment\.bytes'"):
        complete_stream_config({"segment.byte": 1})
