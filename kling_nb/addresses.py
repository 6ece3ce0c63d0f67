"""Where a request may go: origins, loopback, public addresses and allowed hosts, as pure rules.

Invariants: an address is read by the parser that also connects (yarl), so that no two parsers can
disagree about the host; what cannot be read is refused, never guessed; a message of this module holds
a host at most, never a path or a query.
"""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

from yarl import URL

__all__ = [
    "Origin",
    "check_callback",
    "check_store",
    "host_matches",
    "is_address",
    "is_literal",
    "is_loopback",
    "is_loopback_host",
    "is_public",
    "origin_of",
]

#: Runflow takes no longer one: its model page, 2026-04-06.
_MAX_CALLBACK = 2048
#: A password after a colon, slashes in it or not; on the web, where nobody has a name without one, also a
#: token alone.
_PASSWORD = re.compile(r"://[^@]*:[^@]*@|https?://[^/]*@")
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_NUMERIC = re.compile(r"[0-9.]+|(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
# `is_global` differs between Python versions for these; the IANA registries call them special-purpose.
_SPECIAL_V4 = tuple(IPv4Network(net) for net in ("100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24"))
_SPECIAL_V6 = tuple(
    IPv6Network(net) for net in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "2620:4f:8000::/48")
)


class Origin(NamedTuple):
    """Scheme, host and port: what a key belongs to.

    Example:
        >>> origin_of("https://API.runflow.io/v1") == Origin("https", "api.runflow.io", 443)
        True
    """

    scheme: str
    host: str
    port: int


def origin_of(url: str) -> Origin:
    """Read the origin of an absolute http or https address.

    Args:
        url: The address; its query may hold secrets and is never repeated in an error.

    Returns:
        The origin, host in lower case and in its ASCII form.

    Raises:
        ValueError: It is no such address, or it is written in a way that parsers read differently.

    Example:
        >>> origin_of("http://localhost:8000/x")
        Origin(scheme='http', host='localhost', port=8000)
    """
    if _FORBIDDEN.search(url):
        raise ValueError("the address holds a space, a backslash or a control character")
    try:
        parsed = URL(url)
        host, port, user = parsed.raw_host, parsed.port, parsed.raw_user or parsed.raw_password
    except (ValueError, TypeError):
        # The parser's own words repeat the address, and its chain would too.
        parsed = None
    if parsed is None or parsed.scheme not in {"http", "https"} or not host or not port:
        raise ValueError("the address is not a plain http or https one")
    if user is not None:
        raise ValueError("the address holds a user name or password")
    host = host.lower()
    # Resolvers, a proxy's too, read 127.1, 2130706433 or 0x7f.1 as an address: only the dotted quad is one.
    if _NUMERIC.fullmatch(host) and _literal(host) is None:
        raise ValueError("the host is a number that is not an address")
    return Origin(parsed.scheme, host, port)


def check_callback(url: str) -> None:
    """Refuse what is no address to be called at, or may hold a secret: it is kept with the run.

    Args:
        url: The address, at most 2,048 characters.

    Raises:
        ValueError: It is none; the words do not repeat it.

    Example:
        >>> check_callback("https://hub.example.org/user/ada/kling/callbacks/runflow")
    """
    if len(url) > _MAX_CALLBACK:
        raise ValueError(f"must be at most {_MAX_CALLBACK:,} characters, not {len(url):,}")
    if origin_of(url).scheme != "https" and not is_loopback(url):
        raise ValueError("must begin with https; plain http is for this machine only")
    if "?" in url or "#" in url:
        raise ValueError("must have no query and no fragment, which may hold a secret")


def is_address(place: str) -> bool:
    """Whether a text names a place that is no folder of this machine's own.

    Example:
        >>> is_address("s3://team/clips"), is_address("/mnt/clips")
        (True, False)
    """
    return "://" in place


def check_store(address: str) -> None:
    """Refuse an address of clips that holds more than a folder: it is shown and kept.

    Args:
        address: Any that fsspec opens.

    Raises:
        ValueError: It does; the words do not repeat it.

    Example:
        >>> check_store("https://ann:secret@host/clips")
        Traceback (most recent call last):
        ValueError: holds a password or a key
    """
    if _PASSWORD.search(address):
        raise ValueError("holds a password or a key")
    if "?" in address or "#" in address or not address.isprintable():
        raise ValueError("holds a query, a fragment or a control character")


def is_loopback_host(host: str) -> bool:
    """Whether a host is this machine by its name alone, without asking any resolver.

    Args:
        host: A host name or a literal address.

    Returns:
        True for `localhost`, 127.0.0.0/8 and ::1.

    Example:
        >>> is_loopback_host("127.0.0.1"), is_loopback_host("127.0.0.1.example.org")
        (True, False)
    """
    literal = _literal(host)
    return host.lower() == "localhost" if literal is None else literal.is_loopback


def is_loopback(url: str) -> bool:
    """Whether an address leads to this machine, as a sandbox's does.

    Args:
        url: An absolute address, such as a provider's base URL.

    Returns:
        False also for what is no address.

    Example:
        >>> is_loopback("http://localhost:8000"), is_loopback("https://api.runflow.io")
        (True, False)
    """
    try:
        return is_loopback_host(origin_of(url).host)
    except ValueError:
        return False


def is_literal(host: str) -> bool:
    """Whether a host is an address already, so that no resolver is asked.

    Args:
        host: A host name or a literal address.

    Returns:
        True for a dotted quad or an IPv6 address.

    Example:
        >>> is_literal("::1"), is_literal("example.org")
        (True, False)
    """
    return _literal(host) is not None


def is_public(address: str) -> bool:
    """Whether a literal address lies on the public internet.

    IPv4-mapped and NAT64 forms are judged by the IPv4 address inside; 6to4 and Teredo are refused.

    Args:
        address: A literal IPv4 or IPv6 address, also with a zone.

    Returns:
        False for anything private, shared, local, multicast, reserved, unspecified or unreadable.

    Source:
        The IANA IPv4 and IPv6 special-purpose address registries; RFC 6052 for NAT64.

    Example:
        >>> is_public("93.184.216.34"), is_public("::ffff:169.254.169.254")
        (True, False)
    """
    literal = _literal(address)
    if isinstance(literal, IPv6Address):
        if literal.ipv4_mapped is not None:
            literal = literal.ipv4_mapped
        elif literal in _NAT64:
            literal = IPv4Address(int(literal) & 0xFFFFFFFF)
    match literal:
        case IPv4Address():
            special = any(literal in net for net in _SPECIAL_V4)
        case IPv6Address():
            special = literal not in _GLOBAL_UNICAST or any(literal in net for net in _SPECIAL_V6)
        case None:
            return False
    return literal.is_global and not (literal.is_multicast or literal.is_reserved or special)


def host_matches(host: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a host is one of the suffixes or lies below one.

    Args:
        host: A host name.
        suffixes: Names such as `runcomfy.net`, with or without a leading `*.` or dot.

    Returns:
        True only on a whole label: `evilruncomfy.net` does not match `runcomfy.net`.

    Example:
        >>> [host_matches(host, ("*.runcomfy.net",)) for host in ("cdn.runcomfy.net", "evilruncomfy.net")]
        [True, False]
    """
    name = host.lower().rstrip(".")
    bare = [suffix.lower().removeprefix("*").strip(".") for suffix in suffixes]
    return any(suffix and (name == suffix or name.endswith("." + suffix)) for suffix in bare)


@lru_cache(maxsize=256)
def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.strip("[]"))
    except ValueError:
        return None
