"""Where a webhook may go: the guard against requests that a client could not make itself (SSRF).

A URL is refused unless every address its name has now is a public unicast address. The name is resolved once: `Target` holds the address
that was checked, and the request connects to it and to nothing else, so a name that changes its answer between check and use (DNS
rebinding) changes nothing. An operator may allow private addresses, for receivers inside the cluster; link-local addresses, those of the
clouds' metadata services, and everything that is no plain unicast address stay forbidden then, too.

httpx parses the URL, as it will for the request; text that two parsers could read differently is refused first. IPv6 addresses that
carry an IPv4 address (mapped, 6to4, Teredo, NAT64) are refused whatever they carry: where such a packet ends is up to a router.
A network's own NAT64 prefix cannot be known here; where there is one, the network policy must close it.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Sequence[str]]
"""(name, port) to addresses as text. Raises OSError for a name without."""

LONGEST_URL = 2048
LONGEST_HOST = 253
"""Of DNS, in characters."""
DEFAULT_PORTS = {"https": 443, "http": 80}
FIRST_FREE_PORT = 1024
"""Below it are other protocols' ports (mail, SSH, ...), which an HTTP request must not be sent to."""
LOCAL_SUFFIXES = ("localhost", "localdomain", "local", "internal", "home.arpa")
"""Names that mean something different in each network (RFC 6761, 6762, 8375)."""

_PLAIN = re.compile(r"[!#-;=?-\[\]_a-z~]*", re.IGNORECASE)
"""Visible ASCII but for what URLs may not hold: quotes, angle brackets, backslash, caret, backtick, braces, bar."""
_BEGINNING = re.compile(r"[a-z][a-z0-9+.-]*://([^/?#]*)", re.IGNORECASE)
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?", re.IGNORECASE)
_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label that makes URL parsers and C libraries take a name for an IPv4 address: 2130706433, 0x7f.1, 0177.0.0.1."""

_METADATA = "100.100.100.200/32 168.63.129.16/32 192.0.0.192/32 fd00:ec2::/32 fd20:ce::254/128 fd00:42::42/128".split()
"""Where clouds answer with credentials, beside 169.254.169.254."""
_NEVER = {
    "a metadata service's": _METADATA,
    "an unspecified": ["0.0.0.0/8", "::/128"],
    "a link-local": ["169.254.0.0/16", "fe80::/10", "fec0::/10"],
    "a multicast": ["224.0.0.0/4", "ff00::/8"],
    "an IPv4-carrying": "::ffff:0:0/96 ::ffff:0:0:0/96 64:ff9b::/96 64:ff9b:1::/48 2002::/16 2001::/32 192.88.99.0/24".split(),
    "a documentation or benchmark": "192.0.2.0/24 198.51.100.0/24 203.0.113.0/24 198.18.0.0/15 2001:db8::/32 3fff::/20".split(),
    "a reserved": ["192.0.0.0/24", "240.0.0.0/4", "2001::/23"],
}
_PRIVATE = {
    "a loopback": ["127.0.0.0/8", "::1/128"],
    "a private": "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 fc00::/7".split(),
}
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All of IPv6 that is given out for use between networks."""
_KINDS = [
    (ipaddress.ip_network(network), kind, kinds is _PRIVATE)
    for kinds in (_NEVER, _PRIVATE)
    for kind, networks in kinds.items()
    for network in networks
]


class ForbiddenAddress(Exception):
    """A webhook may not go there. The text names the field, what is wrong and the remedy, and no address that a name resolves to: who
    may ask for a webhook may not use it to read the network's names."""

    field = "url"

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(f"{self.field}: {why}; {remedy}")


@dataclass(frozen=True)
class Target:
    """Where a request goes, and whom it asks for."""

    url: httpx.URL = field(repr=False)
    """With the checked address in place of the name. Paths of webhooks are often secrets."""
    name: str
    """Asked for in the TLS handshake, and to be proved by the certificate."""
    authority: str
    """Of the Host header: the name, and the port where it is not the scheme's own."""
    address: str


def resolve(name: str, port: int) -> list[str]:
    """The system's answer, best first. It blocks."""
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [str(sockaddr[0]) for *_, sockaddr in found]


def allowed(url: str, allow_private: bool, resolve: Resolver = resolve) -> Target:
    """The target of a webhook's URL, pinned to an address. Blocks while the name is resolved. Raises ForbiddenAddress."""
    parsed = _parsed(url)
    host = parsed.raw_host.decode("ascii")
    if parsed.scheme == "http" and not allow_private:
        raise ForbiddenAddress("http is not encrypted", "use https")
    port = _port(parsed)
    literal = _literal(host)
    if literal is None:
        _check_name(host, allow_private)
    addresses = [literal] if literal else _resolved(host, port, allow_private, resolve)
    subject = f"{host} is" if literal else f"{host} resolves to"
    private = [_is_private(address, allow_private, subject) for address in addresses]
    if parsed.scheme == "http" and not all(private):
        raise ForbiddenAddress("http is allowed to private addresses only", "use https")
    address, asked = str(addresses[0]), parsed.copy_with(port=port)
    return Target(asked.copy_with(host=address), host, asked.netloc.decode("ascii"), address)


def _parsed(url: str) -> httpx.URL:
    if len(url) > LONGEST_URL:
        raise ForbiddenAddress(f"it is longer than {LONGEST_URL} characters", "use a shorter one")
    if not url.isascii():
        raise ForbiddenAddress("it holds characters other than ASCII", "give the host as xn--..., and the path in percent-encoding")
    if not _PLAIN.fullmatch(url):
        raise ForbiddenAddress("it holds blanks or other characters that no URL may hold", "write them in percent-encoding")
    beginning = _BEGINNING.match(url)
    if beginning is None:
        raise ForbiddenAddress("it is not a whole URL", "begin it with https:// and a host")
    if "@" in beginning[1]:
        raise ForbiddenAddress("it holds a user name or password", "leave them out; deliveries are signed")
    if "#" in url:
        raise ForbiddenAddress("it holds a fragment (#), which is never sent", "leave it out")
    if not _AUTHORITY.fullmatch(beginning[1]):
        raise ForbiddenAddress("its host or port cannot be read", "write https://host/path or https://host:port/path")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ForbiddenAddress(f"it cannot be read ({error})", "write https://host/path") from error
    if parsed.scheme not in DEFAULT_PORTS:
        raise ForbiddenAddress(f"its scheme is {parsed.scheme}", "use https")
    return parsed


def _port(parsed: httpx.URL) -> int:
    default = DEFAULT_PORTS[parsed.scheme]
    port = default if parsed.port is None else parsed.port
    if port != default and not FIRST_FREE_PORT <= port <= 65535:
        raise ForbiddenAddress(
            f"port {port} belongs to another protocol or to none", f"use {default}, or one from {FIRST_FREE_PORT} on"
        )
    return port


def _literal(host: str) -> Address | None:
    """The address that a host is spelled as; None for a name."""
    if ":" in host:
        return ipaddress.IPv6Address(host)
    if not _NUMBER.fullmatch(host.rpartition(".")[2]):
        return None
    try:
        return ipaddress.IPv4Address(host)
    except ipaddress.AddressValueError as error:
        why = f"{host} would be read as an IPv4 address in an unusual spelling"
        raise ForbiddenAddress(why, "write a name, or four decimal numbers without leading zeros") from error


def _check_name(host: str, allow_private: bool) -> None:
    if host.endswith("."):
        raise ForbiddenAddress("its host ends with a dot", "leave the dot out")
    labels = host.split(".")
    if len(host) > LONGEST_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        raise ForbiddenAddress(
            "its host is not a DNS name", f"use labels of letters, digits and hyphens, at most 63 each and {LONGEST_HOST} together"
        )
    local = len(labels) == 1 or any(host.endswith(f".{suffix}") for suffix in LOCAL_SUFFIXES)
    if local and not allow_private:
        raise ForbiddenAddress(f"{host} is a name of the local network", "use a public name")


def _resolved(host: str, port: int, allow_private: bool, resolve: Resolver) -> list[Address]:
    # With its final dot a name is whole: the search domains of a cluster neither complete it nor come first.
    name = host if allow_private else f"{host}."
    try:
        found = [ipaddress.ip_address(text) for text in resolve(name, port)]
    except OSError as error:
        raise ForbiddenAddress(f"{host} cannot be resolved", "give a name that DNS knows") from error
    if not found:
        raise ForbiddenAddress(f"{host} has no address", "give a name that DNS knows")
    return found


def _is_private(address: Address, allow_private: bool, subject: str) -> bool:
    """Raises ForbiddenAddress unless a request may go there."""
    kind, private = _kind(address)
    if kind is None or (private and allow_private):
        return private
    remedy = "use a public one, or ask the operator to allow private addresses" if private else "use a public one"
    raise ForbiddenAddress(f"{subject} {kind} address", remedy)


def _kind(address: Address) -> tuple[str | None, bool]:
    """What an address is called unless it is public, and whether an operator can allow it."""
    for network, kind, private in _KINDS:
        if address in network:
            return kind, private
    if address.version == 6 and address not in _GLOBAL_UNICAST:
        return "a reserved", False
    return None, False
