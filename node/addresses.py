"""HOST:PORT, and which hosts only this machine can reach."""

from __future__ import annotations

import ipaddress
import re
from typing import TypeAlias

Address: TypeAlias = tuple[str, int]

_ADDRESS = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})", re.ASCII
)


def parse_address(value: object) -> Address:
    """Return (host, port) of `127.0.0.1:8101` or `[::1]:8101`; raises ValueError."""
    match = _ADDRESS.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or not 1 <= int(match["port"]) <= 65_535:
        raise ValueError(f"{value!r} is not HOST:PORT with a port of 1 to 65535")
    return match["six"] or match["host"], int(match["port"])


def url_of(address: Address) -> str:
    host, port = address
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`; a name other than localhost may be anybody's."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
