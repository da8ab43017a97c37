"""Everything that can be set about a node, in one table.

Each row of SETTINGS is a key of the TOML file, a flag (`--http-advertise`) and an environment
variable (`CUTE_HTTP_ADVERTISE`). A flag beats the environment, that beats the file, that beats the
default. A name nobody knows is an error that names the nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .addresses import Address, is_loopback, is_wildcard, parse_address, url_of
from .nearest import unknown
from .units import MiB, parse_count, parse_duration_ms, parse_size

NODE_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
VARIABLE_PREFIX: Final = "CUTE_"
_NOT_OURS: Final = frozenset({"CUTE_SERVER"})
"""Variables of the other commands."""
_TYPO: Final = 0.85
"""Likeness above which an unknown CUTE_ variable is a typing error. Others are let pass: Kubernetes
puts CUTE_SERVICE_HOST and the like into every pod beside a service named `cute`."""


class ConfigError(ValueError):
    """A setting is missing, unknown or wrong; the text says which, and where it came from."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """A node's settings, checked. Durations are milliseconds, sizes bytes."""

    id: str
    data: str
    cluster: Mapping[str, Address]
    """Raft addresses of all nodes by id, this one's own included; the log may know better."""
    raft: Address
    join: bool = False
    http: Address = ("127.0.0.1", 8101)
    http_advertise: str | None = None
    insecure: bool = False
    log_level: str = "info"
    log_format: str = "text"
    drain_timeout: int = 5_000
    body_bytes_max: int = 8 * MiB
    bodies_bytes_max: int = 64 * MiB
    answers_bytes_max: int = 64 * MiB
    polls_max: int = 1024
    connections_max: int = 2048
    append_period: int = 100
    election_timeout_min: int = 500
    election_timeout_max: int = 1_000
    check_quorum: int = 1_000
    cache_bytes: int = 32 * MiB
    wal_segment_bytes: int = 64 * MiB
    wal_retain_bytes: int = 128 * MiB
    catchup_bytes_per_s: int = 100 * MiB
    disk_reserve: int = 256 * MiB
    checkpoint_bytes: int = 64 * MiB
    checkpoint_period: int = 60_000
    retention_period: int = 5_000
    scrub_bytes_per_s: int = 4 * MiB
    scrub_pause: int = 86_400_000
    compaction_period: int = 5_000
    compaction_bytes_per_s: int = 8 * MiB

    @property
    def http_url(self) -> str:
        """Base URL that other nodes and redirected clients are told."""
        return self.http_advertise or url_of(self.http)

    @property
    def peers(self) -> dict[str, Address]:
        return {node: where for node, where in self.cluster.items() if node != self.id}

    def __post_init__(self) -> None:
        if self.id not in self.cluster:
            raise ConfigError(
                f"id: '{self.id}' is not one of the cluster's: {', '.join(sorted(self.cluster))}"
            )
        if len(set(self.cluster.values())) < len(self.cluster):
            raise ConfigError("cluster: two nodes have the same address")
        if self.raft == self.http:
            raise ConfigError(f"http: {url_of(self.http)} is the raft address too")
        if is_wildcard(self.http[0]) and self.http_advertise is None:
            raise ConfigError("http_advertise: needed, nobody can connect to a wildcard address")
        if self.bodies_bytes_max < self.body_bytes_max:
            raise ConfigError("bodies_bytes_max: below body_bytes_max, so no large body would fit")
        self._check_timing()
        self._check_exposure()

    def _check_timing(self) -> None:
        if 3 * self.append_period >= self.election_timeout_min:
            raise ConfigError("election_timeout_min: must be over 3 times append_period")
        if self.election_timeout_min >= self.election_timeout_max:
            raise ConfigError("election_timeout_max: must be over election_timeout_min")
        if self.check_quorum <= self.append_period:
            raise ConfigError("check_quorum: must be over append_period")

    def _check_exposure(self) -> None:
        """Refuse to listen, or to trust peers, where strangers may reach or pose as them."""
        if self.insecure:
            return
        used = {"http": self.http, "raft": self.raft}
        used |= {f"cluster, {node}": where for node, where in self.cluster.items()}
        for name, (host, port) in used.items():
            if not is_loopback(host):
                raise ConfigError(
                    f"{name}: {host}:{port} is no loopback address, and there is no TLS and no"
                    " authentication yet: set insecure = true (--insecure) to run it all the same"
                )


@dataclass(frozen=True, slots=True)
class Setting:
    """One row: `parse` takes a TOML value or a string; its ValueError says what is wanted."""

    name: str
    parse: Callable[[Any], Any]
    metavar: str
    help: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return VARIABLE_PREFIX + self.name.upper()


def load_config(flags: Mapping[str, object], environment: Mapping[str, str]) -> NodeConfig:
    """Build the configuration of a node.

    `flags` holds settings by name, None where a flag was not given, and `config`, the path of a
    TOML file. Raises ConfigError.
    """
    values: dict[str, Any] = {}
    path = flags.get("config") or environment.get(VARIABLE_PREFIX + "CONFIG")
    for source, given in (
        (f"file {path}", _from_file(str(path)) if path else {}),
        ("environment", _from_environment(environment)),
        ("flag", {n: v for n, v in flags.items() if v is not None and n != "config"}),
    ):
        values |= _parsed(given, source)
    return _complete(values)


def _parsed(given: Mapping[str, object], source: str) -> dict[str, Any]:
    values = {}
    for name, value in given.items():
        if name not in SETTINGS:
            raise ConfigError(f"{source}: {unknown('setting', name, SETTINGS)}")
        try:
            values[name] = SETTINGS[name].parse(value)
        except ValueError as error:
            raise ConfigError(f"{name} ({source}): {error}") from error
    return values


def _complete(values: dict[str, Any]) -> NodeConfig:
    for name in ("id", "data", "cluster"):
        if name not in values:
            row = SETTINGS[name]
            raise ConfigError(f"{name}: missing; set it by {row.flag}, {row.variable} or the file")
    if "raft" not in values and values["id"] in values["cluster"]:
        values["raft"] = values["cluster"][values["id"]]
    return NodeConfig(**{"raft": ("127.0.0.1", 9101)} | values)


def _from_file(path: str) -> dict[str, object]:
    import tomllib  # few starts need it, and it takes 1 % of one

    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config: {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config: {path} is not TOML: {error}") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, object]:
    known = {row.variable: name for name, row in SETTINGS.items()}
    others = _NOT_OURS | {VARIABLE_PREFIX + "CONFIG"}
    for variable in environment:
        if not variable.startswith(VARIABLE_PREFIX) or variable in known or variable in others:
            continue
        if difflib.get_close_matches(variable, known, n=1, cutoff=_TYPO):
            raise ConfigError(f"environment: {unknown('variable', variable, known)}")
    return {known[v]: text for v, text in environment.items() if v in known}


def _node_id(value: object) -> str:
    if not isinstance(value, str) or not NODE_ID.fullmatch(value):
        raise ValueError(f"{value!r} is no node id: letters, digits and . _ - up to 63, as in 'n1'")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is no text")
    return value


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if not isinstance(value, str) or value.lower() not in words:
        raise ValueError(f"{value!r} is neither true nor false")
    return words[value.lower()]


def _url(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"https?://[^/\s?#@]+", value.rstrip("/")):
        raise ValueError(f"{value!r} is no base URL such as http://log1.example.org:8101")
    return value.rstrip("/")


def _cluster(value: object) -> dict[str, Address]:
    if isinstance(value, str):
        pairs = [part.strip().partition("=") for part in value.split(",")]
        if not all(separator for _, separator, _ in pairs):
            raise ValueError(f"{value!r} is not of the form n1=HOST:PORT,n2=HOST:PORT")
        items = [(node.strip(), address) for node, _, address in pairs]
    elif isinstance(value, dict):
        items = list(value.items())
    else:
        raise ValueError(f"{value!r} is neither n1=HOST:PORT,… nor a table")
    cluster = {_node_id(node): parse_address(address) for node, address in items}
    if len(cluster) < len(items):
        raise ValueError("one id stands for two nodes")
    return cluster


def _choice(*words: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in words:
            raise ValueError(f"{value!r} is none of {', '.join(words)}")
        return str(value)

    return parse


def _number(parse: Callable[[str], int], low: int, high: int) -> Callable[[object], int]:
    def parse_in_range(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError(f"{value!r} is no number")
        number = parse(str(value))
        if not low <= number <= high:
            raise ValueError(f"{value!r} is outside of {low} … {high}")
        return number

    return parse_in_range


def _size(low: int, high: int) -> Callable[[object], int]:
    return _number(parse_size, low, high)


def _duration(low: int, high: int) -> Callable[[object], int]:
    return _number(parse_duration_ms, low, high)


_ROWS = (
    Setting("id", _node_id, "ID", "This node's name in the cluster."),
    Setting("data", _text, "DIR", "Data folder; made if missing, one node at a time."),
    Setting(
        "cluster", _cluster, "n1=HOST:PORT,…", "Raft addresses of all nodes, this one included."
    ),
    Setting("join", _flag, "", "Found no cluster: wait to be added to one."),
    Setting("raft", parse_address, "HOST:PORT", "Where to listen for peers; else as in --cluster."),
    Setting("http", parse_address, "HOST:PORT", "Where to listen for clients."),
    Setting("http_advertise", _url, "URL", "Base URL told to peers and redirected clients."),
    Setting(
        "insecure", _flag, "", "Allow addresses other than loopback: no TLS, no authentication."
    ),
    Setting(
        "log_level", _choice("debug", "info", "warning", "error"), "LEVEL", "Least level logged."
    ),
    Setting("log_format", _choice("text", "json"), "FORMAT", "text or json, one line per event."),
    Setting("drain_timeout", _duration(0, 60_000), "TIME", "At a stop, wait so long for requests."),
    Setting("body_bytes_max", _size(4096, 8 * MiB), "SIZE", "Largest request body."),
    Setting("bodies_bytes_max", _size(MiB, 1024 * MiB), "SIZE", "Request bodies held at a time."),
    Setting(
        "answers_bytes_max", _size(16 * MiB, 1024 * MiB), "SIZE", "Read answers held at a time."
    ),
    Setting(
        "polls_max", _number(parse_count, 1, 100_000), "N", "Reads that wait for records at a time."
    ),
    Setting("connections_max", _number(parse_count, 1, 100_000), "N", "Open HTTP connections."),
    Setting("append_period", _duration(5, 10_000), "TIME", "Heartbeat of an idle leader."),
    Setting(
        "election_timeout_min", _duration(20, 60_000), "TIME", "Shortest silence before a vote."
    ),
    Setting(
        "election_timeout_max", _duration(21, 60_000), "TIME", "Longest silence before a vote."
    ),
    Setting("check_quorum", _duration(10, 60_000), "TIME", "A cut-off leader steps down after it."),
    Setting("cache_bytes", _size(MiB, 1024 * 1024 * MiB), "SIZE", "Batches in memory for readers."),
    Setting("wal_segment_bytes", _size(MiB, 1024 * MiB), "SIZE", "Size of a write-ahead log file."),
    Setting(
        "wal_retain_bytes",
        _size(0, 1024 * 1024 * MiB),
        "SIZE",
        "Log kept for nodes that were away.",
    ),
    Setting(
        "catchup_bytes_per_s",
        _size(MiB // 16, 1024 * 1024 * MiB),
        "SIZE",
        "How fast this node fetches a snapshot.",
    ),
    Setting(
        "disk_reserve",
        _size(MiB, 1024 * 1024 * MiB),
        "SIZE",
        "Room kept free: below it, appends are refused.",
    ),
    Setting(
        "checkpoint_bytes", _size(MiB, 1024 * MiB), "SIZE", "Applied bytes between checkpoints."
    ),
    Setting("checkpoint_period", _duration(1_000, 3_600_000), "TIME", "Time between checkpoints."),
    Setting(
        "retention_period",
        _duration(100, 3_600_000),
        "TIME",
        "Time between looks for what to let go.",
    ),
    Setting(
        "scrub_bytes_per_s",
        _size(0, 1024 * MiB),
        "SIZE",
        "Pace of the look for damage in all segments; 0: none.",
    ),
    Setting(
        "scrub_pause",
        _duration(1_000, 366 * 86_400_000),
        "TIME",
        "Time between two such rounds.",
    ),
    Setting(
        "compaction_period",
        _duration(100, 3_600_000),
        "TIME",
        "Time between looks for what to compact.",
    ),
    Setting(
        "compaction_bytes_per_s",
        _size(MiB // 16, 1024 * MiB),
        "SIZE",
        "Pace at which segments are read to be compacted.",
    ),
)
SETTINGS: Final[Mapping[str, Setting]] = {row.name: row for row in _ROWS}
"""By name; the names are NodeConfig's fields."""


def default_of(name: str) -> object:
    """Return the default of a setting, None if it has none."""
    field = next(field for field in dataclasses.fields(NodeConfig) if field.name == name)
    return None if field.default is dataclasses.MISSING else field.default
