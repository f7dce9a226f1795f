"""Which names and addresses mean this machine."""

from __future__ import annotations

import ipaddress


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
    return host.lower().removesuffix(".").rpartition(".")[2] == "localhost" or is_loopback_address(host)
