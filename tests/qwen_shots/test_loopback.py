"""Names and addresses of this machine, by RFC 1122, RFC 4291 and RFC 6761."""

from __future__ import annotations

import pytest

from qwen_shots.loopback import is_loopback_address, is_this_machine

ADDRESSES = ["127.0.0.1", "127.255.0.9", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1"]
NAMES = ["localhost", "LOCALHOST", "localhost.", "shots.localhost"]
OTHERS = [
    "",
    ".",
    "0.0.0.0",
    "128.0.0.1",
    "::",
    "::2",
    "::ffff:192.0.2.1",
    "localhost.example.com",
    "notlocalhost",
    "example.com",
]


@pytest.mark.parametrize("host", [*ADDRESSES, *NAMES, *OTHERS])
def test_what_means_this_machine(host: str) -> None:
    assert is_loopback_address(host) == (host in ADDRESSES)
    assert is_this_machine(host) == (host not in OTHERS)
