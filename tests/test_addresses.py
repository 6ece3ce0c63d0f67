"""The address rules, case by case, against the registries and against the ways around them."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kling_nb.addresses import host_matches, is_loopback_host, is_public, origin_of

INSIDE = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.0",
    "10.255.255.255",
    "100.64.0.0",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.255",
    "169.254.0.1",
    "169.254.169.254",
    "172.16.0.0",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "::10.0.0.1",
    "::8.8.8.8",
    "64:ff9b::10.0.0.1",
    "64:ff9b::127.0.0.1",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:a00:1::1",
    "2002:808:808::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd12::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "4000::1",
    "localhost",
    "example.org",
    "1.2.3",
    "1.2.3.4.5",
    "01.2.3.4",
    "2130706433",
]
OUTSIDE = [
    "8.8.8.8",
    "1.1.1.1",
    "93.184.216.34",
    "99.255.255.255",
    "100.128.0.0",
    "172.32.0.0",
    "192.0.1.1",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00:1450::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]


@pytest.mark.parametrize("address", INSIDE)
def test_inside(address):
    """Nothing private, local, shared, reserved or disguised passes for public."""
    assert not is_public(address)


@pytest.mark.parametrize("address", OUTSIDE)
def test_outside(address):
    """Ordinary public addresses pass, also in their mapped and NAT64 forms."""
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_disguises_change_nothing(address):
    """An IPv4 address is judged the same in every dress, and never better than Python's own rule."""
    plain = is_public(str(address))
    assert is_public(f"::ffff:{address}") == plain
    assert is_public(f"64:ff9b::{address}") == plain
    assert not plain or (address.is_global and not address.is_multicast)


@given(st.ip_addresses(v=6))
def test_public_v6_is_global_unicast(address):
    """A public IPv6 address lies in 2000::/3, or holds a public IPv4 one."""
    if is_public(str(address)):
        assert (
            address in ipaddress.ip_network("2000::/3")
            or address.ipv4_mapped
            or address in ipaddress.ip_network("64:ff9b::/96")
        )


@given(st.text(max_size=60))
def test_origin_of_junk(text):
    """Any text is read or refused with a ValueError that does not repeat it."""
    words = ""
    try:
        origin = origin_of(text)
    except ValueError as error:
        words = str(error)
    else:
        assert origin.scheme in {"http", "https"}
        assert origin.host
    assert len(words) < 80


@given(st.text(alphabet="ab:/@\\?#.[]%1\t é", max_size=30))
def test_origin_of_near_addresses(text):
    """What looks like an address names one host, the same with and without its path."""
    try:
        origin = origin_of("https://" + text)
    except ValueError:
        return
    assert (
        origin_of(
            f"https://{'[' * (':' in origin.host)}{origin.host}{']' * (':' in origin.host)}:{origin.port}/"
        )
        == origin
    )


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://API.Example.org", "api.example.org", 443),
        ("http://127.0.0.1:80/a?b#c", "127.0.0.1", 80),
        ("https://[::1]:8443/", "::1", 8443),
        ("https://b\u00fccher.example/", "xn--bcher-kva.example", 443),
        ("https://a.example?x=https://b.example/", "a.example", 443),
    ],
)
def test_origin_of(url, host, port):
    """Hosts are compared in lower case and ASCII, ports with their defaults."""
    origin = origin_of(url)
    assert (origin.host, origin.port) == (host, port)


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("localhost", True),
        ("LOCALHOST", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("localhost.", False),
    ],
)
def test_is_loopback_host(host, here):
    """Only names and addresses that cannot mean another machine are loopback."""
    assert is_loopback_host(host) is here


@pytest.mark.parametrize(
    ("host", "suffix", "fits"),
    [
        ("a.b.net", "b.net", True),
        ("b.net", "b.net", True),
        ("a.b.net.", "b.net", True),
        ("A.B.NET", "*.b.net", True),
        ("a.b.net", ".b.net", True),
        ("ab.net", "b.net", False),
        ("b.net.org", "b.net", False),
        ("b.net", "", False),
        ("b.net", "*", False),
        ("b.net", ".", False),
    ],
)
def test_host_matches(host, suffix, fits):
    """A suffix matches whole labels, and an empty one matches nothing."""
    assert host_matches(host, (suffix,)) is fits
    assert not host_matches(host, ())
