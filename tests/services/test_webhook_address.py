"""Where webhooks may go: a table of hostile URLs, and what an operator can allow."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.webhooks.address import ForbiddenAddress, Resolver, allowed

PUBLIC = "93.184.216.34"
PUBLIC_SIX = "2606:2800:21f:cb07:6820:80da:af6b:8b2c"


def answers(*addresses: str) -> Resolver:
    return lambda name, port: list(addresses)


def unknown(name: str, port: int) -> Sequence[str]:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def never(name: str, port: int) -> Sequence[str]:
    raise AssertionError(f"{name} was resolved")


def refusal(url: str, resolve: Resolver = never, *, allow_private: bool = False) -> str:
    with pytest.raises(ForbiddenAddress) as caught:
        allowed(url, allow_private, resolve)
    return str(caught.value)


ALWAYS = [
    # Shape.
    ("", "not a whole URL"),
    ("hooks.example.com/x", "not a whole URL"),
    ("https:hooks.example.com", "not a whole URL"),
    ("https:///x", "host or port"),
    ("//hooks.example.com/x", "not a whole URL"),
    ("file:///etc/passwd", "host or port"),
    ("gopher://hooks.example.com:6379/_x", "scheme"),
    ("ftp://hooks.example.com/x", "scheme"),
    ("javascript:alert(1)", "not a whole URL"),
    ("https://hooks.example.com/" + "x" * 2048, "longer"),
    ("https://user@hooks.example.com/", "user name"),
    ("https://user:word@hooks.example.com/", "user name"),
    ("https://@hooks.example.com/", "user name"),
    ("https://hooks.example.com:443@169.254.169.254/", "user name"),
    ("https://hooks.example.com#@169.254.169.254/", "fragment"),
    ("https://hooks.example.com/#", "fragment"),
    ("https://hooks.example.com\\@169.254.169.254/", "no URL may hold"),
    ("https://hooks.example.com/ x", "no URL may hold"),
    (" https://hooks.example.com/", "no URL may hold"),
    ("https://hooks.example.com/\r\nX-Other: 1", "no URL may hold"),
    ("https://hooks.example\t.com/", "no URL may hold"),
    ("https://hooks.example.com/\x00", "no URL may hold"),
    ("https://hooks%2eexample.com/", "host or port"),
    ("https://169.254.169.254%2f.example.com/", "host or port"),
    ("https://hooks_x.example.com/", "host or port"),
    ("https://[::1/", "host or port"),
    ("https://[::1%25lo]/", "host or port"),
    ("https://[::1]x/", "host or port"),
    ("https://[v1.x]/", "host or port"),
    ("https://[1:2]/", "cannot be read"),
    # Ports.
    ("https://hooks.example.com:0/", "port 0"),
    ("https://hooks.example.com:22/", "port 22"),
    ("https://hooks.example.com:80/", "port 80"),
    ("https://hooks.example.com:65536/", "port 65536"),
    ("https://hooks.example.com:4_43/", "host or port"),
    ("https://hooks.example.com:+443/", "host or port"),
    ("https://hooks.example.com:443:80/", "host or port"),
    # Names.
    ("https://hooks.example.com./", "ends with a dot"),
    ("https://127.0.0.1./", "ends with a dot"),
    ("https://hooks..example.com/", "DNS name"),
    ("https://-hooks.example.com/", "DNS name"),
    ("https://hooks-.example.com/", "DNS name"),
    (f"https://{'x' * 64}.example.com/", "DNS name"),
    (f"https://{'x.' * 127}com/", "DNS name"),
    ("https://hööks.example.com/", "ASCII"),
    ("https://ⓛocalhost/", "ASCII"),
    ("https://\uff11\uff12\uff17.0.0.1/", "ASCII"),
    ("https://127。0。0。1/", "ASCII"),
    # IPv4 in spellings that a C library takes.
    ("https://2130706433/", "unusual spelling"),
    ("https://0x7f000001/", "unusual spelling"),
    ("https://017700000001/", "unusual spelling"),
    ("https://0x7f.0.0.1/", "unusual spelling"),
    ("https://127.0.0.0x1/", "unusual spelling"),
    ("https://0177.0.0.1/", "unusual spelling|cannot be read"),
    ("https://127.1/", "unusual spelling"),
    ("https://127.0.1/", "unusual spelling"),
    ("https://0/", "unusual spelling"),
    ("https://1.2.3.4.5/", "unusual spelling"),
    ("https://256.1.1.1/", "unusual spelling|cannot be read"),
    ("https://x.1/", "unusual spelling"),
    # Addresses that nobody can allow.
    ("https://169.254.169.254/latest/meta-data/", "link-local"),
    ("https://169.254.170.2/", "link-local"),
    ("https://0.0.0.0/", "unspecified"),
    ("https://224.0.0.1/", "multicast"),
    ("https://240.0.0.1/", "reserved"),
    ("https://255.255.255.255/", "reserved"),
    ("https://192.0.2.1/", "documentation"),
    ("https://198.18.0.1/", "documentation or benchmark"),
    ("https://100.100.100.200/", "metadata"),
    ("https://168.63.129.16/", "metadata"),
    ("https://192.0.0.192/", "metadata"),
    ("https://[::]/", "unspecified"),
    ("https://[fe80::1]/", "link-local"),
    ("https://[fec0::1]/", "link-local"),
    ("https://[ff02::1]/", "multicast"),
    ("https://[fd00:ec2::254]/", "metadata"),
    ("https://[fd20:ce::254]/", "metadata"),
    ("https://[::ffff:127.0.0.1]/", "IPv4-carrying"),
    ("https://[::ffff:a9fe:a9fe]/", "IPv4-carrying"),
    (f"https://[::ffff:{PUBLIC}]/", "IPv4-carrying"),
    ("https://[::ffff:0:7f00:1]/", "IPv4-carrying"),
    ("https://[::127.0.0.1]/", "reserved"),
    ("https://[2002:7f00:1::]/", "IPv4-carrying"),
    ("https://[64:ff9b::127.0.0.1]/", "IPv4-carrying"),
    ("https://[64:ff9b:1::1]/", "IPv4-carrying"),
    ("https://[2001:0:a:b::1]/", "IPv4-carrying"),
    ("https://[2001:db8::1]/", "documentation"),
    ("https://[100::1]/", "reserved"),
    ("https://[4000::1]/", "reserved"),
]
UNLESS_ALLOWED = [
    ("https://127.0.0.1:8443/", "loopback"),
    ("https://127.255.255.254/", "loopback"),
    ("https://10.1.2.3/", "private"),
    ("https://172.16.0.1/", "private"),
    ("https://172.31.255.255/", "private"),
    ("https://192.168.1.1/", "private"),
    ("https://100.64.0.1/", "private"),
    ("https://[::1]/", "loopback"),
    ("https://[0:0:0:0:0:0:0:1]/", "loopback"),
    ("https://[fd12:3456::1]/", "private"),
]
LOCAL_NAMES = [
    "localhost",
    "LOCALHOST",
    "a.localhost",
    "localhost.localdomain",
    "ip6-localhost",
    "receiver",
    "receiver.prod.svc.cluster.local",
    "metadata.google.internal",
    "router.home.arpa",
]


@pytest.mark.parametrize("allow_private", [False, True])
@pytest.mark.parametrize(("url", "why"), ALWAYS)
def test_a_hostile_url_is_refused_before_a_name_is_resolved(url: str, why: str, allow_private: bool) -> None:
    said = refusal(url, allow_private=allow_private)
    assert said.startswith("url: ")
    assert any(part in said for part in why.split("|")), said
    assert "; " in said


@pytest.mark.parametrize(("url", "why"), UNLESS_ALLOWED)
def test_a_private_address_is_refused_unless_the_operator_allows_it(url: str, why: str) -> None:
    assert f"{why} address; use a public one, or ask the operator" in refusal(url)
    assert ipaddress.ip_address(allowed(url, True, never).address).is_private or "100.64" in url


@pytest.mark.parametrize("name", LOCAL_NAMES)
def test_a_name_of_the_local_network_is_refused_unless_the_operator_allows_it(name: str) -> None:
    assert "local network" in refusal(f"https://{name}/")
    assert allowed(f"https://{name}/", True, answers("10.0.0.9")).address == "10.0.0.9"


@pytest.mark.parametrize("answer", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "fe80::1%2", "0.0.0.0"])
@pytest.mark.parametrize("beside", [(), (PUBLIC,)])
def test_a_name_is_refused_if_any_of_its_addresses_is(answer: str, beside: tuple[str, ...]) -> None:
    for found in ((answer, *beside), (*beside, answer)):
        said = refusal("https://hooks.example.com/", answers(*found))
        assert "hooks.example.com resolves to a" in said
        assert answer not in said


@pytest.mark.parametrize("answer", ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "::ffff:10.0.0.1", "224.0.0.1"])
def test_what_answers_with_credentials_is_out_of_reach_of_an_operator_who_allows_private_addresses(answer: str) -> None:
    assert "resolves to" in refusal("https://receiver/", answers("10.0.0.1", answer), allow_private=True)


@pytest.mark.parametrize("resolve", [unknown, answers()])
def test_a_name_without_an_address_is_refused(resolve: Resolver) -> None:
    assert "give a name that DNS knows" in refusal("https://hooks.example.com/", resolve)


def test_http_is_refused_unless_the_operator_allows_private_addresses_and_it_is_one() -> None:
    assert "use https" in refusal("http://hooks.example.com/", answers(PUBLIC))
    assert "use https" in refusal("http://10.0.0.1/")
    assert "use https" in refusal("http://hooks.example.com/", answers(PUBLIC), allow_private=True)
    assert "use https" in refusal("http://hooks.example.com/", answers("10.0.0.1", PUBLIC), allow_private=True)
    assert str(allowed("http://receiver/x", True, answers("10.0.0.1")).url) == "http://10.0.0.1/x"


@pytest.mark.parametrize(
    ("url", "found", "goes_to", "name", "authority"),
    [
        ("https://hooks.example.com/a?b=c", PUBLIC, f"https://{PUBLIC}/a?b=c", "hooks.example.com", "hooks.example.com"),
        ("HTTPS://Hooks.Example.COM:443", PUBLIC, f"https://{PUBLIC}", "hooks.example.com", "hooks.example.com"),
        ("https://hooks.example.com:8443/", PUBLIC, f"https://{PUBLIC}:8443/", "hooks.example.com", "hooks.example.com:8443"),
        ("https://hooks.example.com/", PUBLIC_SIX, f"https://[{PUBLIC_SIX}]/", "hooks.example.com", "hooks.example.com"),
        ("https://xn--hks-1qaa.example/%C3%B6", PUBLIC, f"https://{PUBLIC}/%C3%B6", "xn--hks-1qaa.example", "xn--hks-1qaa.example"),
        (f"https://{PUBLIC}/x", "", f"https://{PUBLIC}/x", PUBLIC, PUBLIC),
        (f"https://[{PUBLIC_SIX}]:8443/", "", f"https://[{PUBLIC_SIX}]:8443/", PUBLIC_SIX, f"[{PUBLIC_SIX}]:8443"),
    ],
)
def test_the_target_is_the_address_and_asks_for_the_name(url: str, found: str, goes_to: str, name: str, authority: str) -> None:
    target = allowed(url, False, answers(found) if found else never)
    assert (target.url, target.name, target.authority) == (httpx.URL(goes_to), name, authority)
    assert target.url.raw_path == httpx.URL(url).raw_path


def test_a_public_name_is_resolved_once_and_without_the_search_domains_of_the_cluster() -> None:
    asked: list[tuple[str, int]] = []

    def resolve(name: str, port: int) -> list[str]:
        asked.append((name, port))
        return [PUBLIC, PUBLIC_SIX]

    assert allowed("https://hooks.example.com:8443/", False, resolve).address == PUBLIC
    assert asked == [("hooks.example.com.", 8443)]


def test_the_systems_own_resolver_is_asked_unless_another_is_given() -> None:
    assert ipaddress.ip_address(allowed("http://localhost:8080/", True).address).is_loopback


def test_a_secret_path_is_not_shown_where_the_target_is() -> None:
    assert "T0KEN" not in repr(allowed("https://hooks.example.com/T0KEN", False, answers(PUBLIC)))


@settings(max_examples=200, deadline=None)
@given(st.ip_addresses())
@example(ipaddress.ip_address("2001:20::1"))
@example(ipaddress.ip_address("100.127.255.255"))
@example(ipaddress.ip_address("2606::1"))
def test_what_is_allowed_is_global_and_unicast_to_python_too(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    try:
        allowed("https://hooks.example.com/", False, answers(str(address)))
    except ForbiddenAddress:
        return
    assert (address.is_global, address.is_multicast, address.is_reserved) == (True, False, False)
