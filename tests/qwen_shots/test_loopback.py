"""Names and addresses of this machine, by RFC 1122, RFC 4291 and RFC 6761."""

from __future__ import annotations

import pytest

from qwen_shots.loopback import is_local_authority, is_local_origin, is_loopback_address, is_this_machine

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
    "evil@localhost",
    "evil/.localhost",
    "..localhost",
    "localho\u017ft",
]
# By RFC 9110, section 7.2: a host and, if need be, a port.
AUTHORITIES = ["localhost", "LOCALHOST:8000", "a.localhost.:1", "127.0.0.1:65535", "[::1]", "[::1]:8000", "localhost:"]
NO_AUTHORITIES = [
    "",
    "evil@localhost",
    "evil:x@localhost:8000",
    "localhost/evil",
    "localhost?x",
    "localhost#x",
    "localhost:evil",
    "localhost:80:80",
    "localhost:65536",
    "localhost:8\u0661",
    " localhost",
    "localhost\t",
    "localhost\n",
    "localhost,example.com",
    "http://localhost",
    "::1",
    "[::1",
    "[::1].evil.com",
    "[::1]evil",
    "[localhost]",
    "[127.0.0.1]",
    "127.0.0.1.evil.com",
]
# By the Fetch standard: a scheme and an authority.
NO_ORIGINS = ["null", "localhost", "//localhost", "file://localhost", "ftp://localhost", "http:localhost", "http://"]


@pytest.mark.parametrize("host", [*ADDRESSES, *NAMES, *OTHERS])
def test_what_means_this_machine(host: str) -> None:
    assert is_loopback_address(host) == (host in ADDRESSES)
    assert is_this_machine(host) == (host not in OTHERS)


@pytest.mark.parametrize("text", [*AUTHORITIES, *NO_AUTHORITIES])
def test_which_host_and_port_mean_this_machine(text: str) -> None:
    assert is_local_authority(text) == (text in AUTHORITIES)
    for scheme in ("http", "https"):
        assert is_local_origin(f"{scheme}://{text}") == (text in AUTHORITIES)


@pytest.mark.parametrize("text", [*NO_ORIGINS, "http://localhost/", "https://x@localhost"])
def test_what_is_no_origin_of_this_machine(text: str) -> None:
    assert not is_local_origin(text)
