"""Which links are followed: schemes, hosts, addresses after DNS, redirects."""

import asyncio

import httpx
import pytest

from kling_nb.addresses import origin_of
from kling_nb.network.client import Transport
from kling_nb.network.download import DownloadError, _next_link
from support.transport import Names, answer, replying, serving
from support.transport_cases import (
    CLIP,
    PATIENT,
    SHA,
    fetch,
    moving,
    refused,
)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://cdn.example.org/clip?sig=hush", "not https"),
        ("http://93.184.216.34/clip", "not https"),
        ("ftp://cdn.example.org/clip", "cannot be used"),
        ("file:///etc/passwd", "cannot be used"),
        ("https://user:hush@cdn.example.org/clip", "user name"),
        ("https://cdn.example.org\\@127.0.0.1/clip", "backslash"),
        ("https://169.254.169.254/latest/clip", "not a public address"),
        ("https://[::ffff:169.254.169.254]/clip", "not a public address"),
        ("https://[64:ff9b::a9fe:a9fe]/clip", "not a public address"),
        ("https://[fe80::1]/clip", "not a public address"),
        ("https://10.0.0.1/clip", "not a public address"),
        ("https://0.0.0.0/clip", "not a public address"),
        ("https://2130706433/clip", "number"),
        ("https://127.1/clip", "number"),
        ("https://0x7f000001/clip", "number"),
        ("https://0x7f.1/clip", "number"),
        ("https://x.example.0177/clip", "number"),
        ("https://0177.0.0.1/clip", "number"),
        ("", "cannot be used"),
    ],
)
@pytest.mark.parametrize("allow_loopback", [True, False])
def test_links_refused_unasked(url, words, allow_loopback):
    """A link to a wrong kind of place is refused before any name is resolved."""
    names = Names({})
    error, wire = refused(url, names=names, allow_loopback=allow_loopback)
    assert words in str(error)
    assert (wire.connections, names.asked) == (0, [])
    assert error.host_unknown is False


@pytest.mark.parametrize(
    "url", ["{here}/clip", "http://localhost:{port}/clip", "https://[::1]/clip", "https://127.0.0.1/clip"]
)
def test_loopback_only_where_allowed(url):
    """Without leave, a link to this machine is refused, whatever its scheme."""
    error, wire = refused(url, allow_loopback=False)
    assert "this machine" in str(error)
    assert wire.connections == 0


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "fe80::1",
        "fd00::1",
        "2002:7f00:1::1",
    ],
)
@pytest.mark.parametrize("allow_loopback", [True, False])
def test_names_that_lead_inside_are_refused_at_connect(address, allow_loopback):
    """A public name with a private address is refused after DNS, also where loopback is allowed."""
    names = Names({"cdn.example.org": [address]})
    error, wire = refused(
        "https://cdn.example.org:{port}/clip",
        names=names,
        allowed_hosts=("example.org",),
        allow_loopback=allow_loopback,
    )
    assert names.asked == ["cdn.example.org"]
    assert wire.connections == 0
    assert "not allowed" in str(error)


def test_public_address_among_private_ones_is_tried():
    """Only the allowed addresses of a name are connected to."""
    names = Names({"cdn.example.org": ["127.0.0.1", "203.0.113.5", "::1"]})
    error, wire = refused("https://cdn.example.org:{port}/clip", names=names)
    assert "not allowed" in str(error)
    assert wire.connections == 0


def test_name_that_does_not_resolve():
    """It says that the name is not known, and no status."""
    error, _ = refused("https://cdn.example.org/clip", names=Names({"cdn.example.org": OSError("down")}))
    assert error.http_status is None
    assert error.what == "The clip did not come from cdn.example.org: its name could not be resolved."


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("storage.runcomfy.net", True),
        ("runcomfy.net", True),
        ("RunComfy.Net", True),
        ("evilruncomfy.net", False),
        ("runcomfy.net.evil.org", False),
        ("example.org", False),
    ],
)
def test_host_list(host, known):
    """A host outside the list is refused unasked, in words that keep the run saving."""
    names = Names({host.lower(): OSError("down")})
    error, wire = refused(
        f"https://{host}/clip?sig=hush", names=names, allowed_hosts=("runcomfy.net", "runcomfy.com")
    )
    assert error.host_unknown is not known
    assert len(names.asked) == int(known)
    assert known or ("saving" in str(error) and host in str(error))
    assert wire.connections == 0


def test_host_list_does_not_stop_the_sandbox():
    """Where loopback is allowed it needs no place on the provider's list."""

    async def run():
        async with serving(replying(answer(b"abc"))) as wire, Transport(**PATIENT) as transport:
            got, _ = await fetch(transport, f"{wire.origin}/clip", allowed_hosts=("runcomfy.net",))
            return got.size

    assert asyncio.run(run()) == 3


@pytest.mark.parametrize("status", ["301 a", "302 b", "303 c", "307 d", "308 e"])
def test_redirect_on_the_same_origin_is_followed(status):
    """A few redirects within the same origin are followed, relative or absolute."""

    async def run():
        behave = moving("/a", "{here}/b", "c", status=status)
        async with serving(behave) as wire, Transport(**PATIENT) as transport:
            got, _ = await fetch(transport, f"{wire.origin}/clip?sig=hush")
            return got.sha256, wire.whole

    assert asyncio.run(run()) == (SHA, 4)


@pytest.mark.parametrize(
    "place",
    [
        "https://cdn.example.org/hush",
        "https://169.254.169.254/hush",
        "//169.254.169.254/hush",
        "ftp://127.0.0.1:{port}/hush",
        "http://127.0.0.1:{port}\\@evil.org/",
        "http://user:hush@127.0.0.1:{port}/",
        "https:///",
    ],
)
def test_redirect_elsewhere_is_refused(place):
    """A redirect from this machine to another, or to what is no link, is refused and not even asked."""
    names = Names({"localhost": ["127.0.0.1"]})
    error, wire = refused("{here}/clip?sig=hush", behave=moving(place), names=names)
    assert "redirected" in str(error)
    assert error.http_status == 302
    assert wire.whole == 1
    assert names.asked == []


def test_a_redirect_to_another_server_of_this_machine_is_followed():
    """A stand-in may keep its clips on another loopback origin, as providers do on another host."""

    async def run():
        async with serving(replying(answer(CLIP))) as clips, Transport(**PATIENT) as transport:
            place = clips.origin.replace("127.0.0.1", "localhost") + "/clip?sig=hush"
            async with serving(moving(place)) as wire:
                got, _ = await fetch(transport, f"{wire.origin}/clip?sig=hush")
                return got.sha256, wire.whole, clips.whole

    sha, asked, served = asyncio.run(run())
    assert (sha, asked, served) == (SHA, 1, 1)


def _followed(link, place, hosts=None):
    response = httpx.Response(302, headers={"location": place})
    return str(_next_link(httpx.URL(link), response, origin_of(link), hosts))


@pytest.mark.parametrize(
    ("place", "hosts"),
    [
        ("https://other.example.org/b?x=1", None),
        ("//other.example.org/b", None),
        ("/b", None),
        ("https://b.runcomfy.com/v", ("runcomfy.net", "runcomfy.com")),
    ],
)
def test_a_public_https_redirect_leads_on(place, hosts):
    """From a public host to a public https host; RunComfy's inside its own list."""
    assert _followed("https://a.runcomfy.net/a", place, hosts).startswith("https://")


@pytest.mark.parametrize(
    ("place", "hosts", "unknown"),
    [
        ("http://other.example.org/b", None, False),
        ("https://10.0.0.1/b", None, False),
        ("https://127.0.0.1/b", None, False),
        ("https://localhost/b", None, False),
        ("https://other.example.org/b", ("runcomfy.net",), True),
    ],
)
def test_a_redirect_against_the_rules_names_the_host_and_the_way_out(place, hosts, unknown):
    """Plain http, a private place, this machine, a host that is not the provider's: not followed."""
    with pytest.raises(DownloadError, match="redirected the download to") as caught:
        _followed("https://a.runcomfy.net/a", place, hosts)
    assert httpx.URL(place).host in str(caught.value)
    assert "resume" in caught.value.cure
    assert caught.value.host_unknown is unknown


def test_links_are_sent_as_they_are_spelled():
    """A signature may cover the very spelling of a link, so no escape is decoded and none is added."""
    link = "/a%2Fb%7Ec+d.mp4?Credential=A%2F2026%2Fs3&sig=ab%2Bcd%2F%3D%3D&x=%7E~&y=:/@,;*!'()&z"

    async def run():
        async with serving(moving(link + "&2")) as wire, Transport(**PATIENT) as transport:
            await fetch(transport, wire.origin + link)
            return [head.split(" ")[1] for head in wire.heads]

    assert asyncio.run(run()) == [link, link + "&2"]


def test_unreadable_redirect_is_refused():
    """A redirect that no parser reads is refused as well, and leaks nothing."""
    _, wire = refused("{here}/clip?sig=hush", behave=moving("http://[::1"))
    assert wire.whole == 1


def test_redirects_come_to_an_end():
    """A circle of redirects is left after a few rounds."""
    error, wire = refused("{here}/clip", behave=moving(*["/clip"] * 20))
    assert "redirected" in str(error)
    assert wire.whole == 4


def test_proxy_may_live_inside(monkeypatch):
    """Behind a proxy the address rule does not judge the proxy, only the link itself."""
    names = Names({"proxy.internal": ["127.0.0.1"]})

    async def run():
        async with serving(replying(answer(b"", "403 No tunnel"))) as wire:
            monkeypatch.setenv("HTTPS_PROXY", f"http://proxy.internal:{wire.port}")
            async with Transport(**PATIENT, resolver=names) as transport:
                with pytest.raises(DownloadError, match="proxy") as caught:
                    await fetch(transport, "https://cdn.example.org/clip?sig=hush")
                with pytest.raises(DownloadError, match="public"):
                    await fetch(transport, "https://10.0.0.1/clip?sig=hush")
            return caught.value, wire.heads

    error, heads = asyncio.run(run())
    assert error.http_status is None
    assert [head.split("\r\n")[0] for head in heads] == ["CONNECT cdn.example.org:443 HTTP/1.1"]
    assert names.asked == ["proxy.internal"]
