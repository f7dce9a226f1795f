"""Which names and addresses mean this machine."""

from __future__ import annotations

import ipaddress
import re

LOCAL_NAME = re.compile(r"(?:[a-z0-9_-]+\.)*localhost\.?", re.ASCII | re.IGNORECASE)
# RFC 9110, section 7.2: no user, no path.
HOST_AND_PORT = re.compile(
    r"(?:\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>[a-z0-9_.-]+))(?::(?P<port>[0-9]{0,5}))?", re.ASCII | re.IGNORECASE
)
ORIGIN = re.compile(r"https?://(?P<host>.+)")
MAX_PORT = 65_535


def is_loopback_address(host: str) -> bool:
    """Whether this is an address in 127.0.0.0/8 or ::1, be it written as IPv6 (`::ffff:127.0.0.1`)."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def is_this_machine(host: str) -> bool:
    """Whether this is `localhost`, a name under it (RFC 6761), or a loopback address."""
    return LOCAL_NAME.fullmatch(host) is not None or is_loopback_address(host)


def is_local_authority(text: str) -> bool:
    """Whether a Host header, `NAME`, `NAME:PORT` or `[IPV6]:PORT`, means this machine."""
    match = HOST_AND_PORT.fullmatch(text)
    if match is None or int(match["port"] or 0) > MAX_PORT:
        return False
    if match["ipv6"]:
        return ":" in match["ipv6"] and is_loopback_address(match["ipv6"])
    return is_this_machine(match["name"])


def is_local_origin(text: str) -> bool:
    """Whether an Origin header, `http://HOST:PORT` or `https://HOST:PORT`, means a page of this machine."""
    match = ORIGIN.fullmatch(text)
    return match is not None and is_local_authority(match["host"])
