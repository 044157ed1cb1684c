"""A receiver of webhooks: a real HTTP server in a thread, with TLS or without, that answers as it is told; and certificates for it."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

LOOPBACK = "127.0.0.1"
LONGEST_HANG_SECONDS = 30.0


@dataclass(frozen=True)
class Received:
    path: str
    headers: dict[str, str]
    body: str


@dataclass
class Receiver:
    """What has come so far. `over` is set when the test is done, for those who hang."""

    port: int = 0
    connections: int = 0
    received: list[Received] = field(default_factory=list)
    asked_for: list[str | None] = field(default_factory=list)
    """Server names of the TLS handshakes."""
    over: threading.Event = field(default_factory=threading.Event)


Answer = Callable[[BaseHTTPRequestHandler, Receiver], None]
"""Writes an answer; the request has been read."""


def says(status: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler, _: Receiver) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def writes(*pieces: bytes) -> Answer:
    """These bytes as they are, and closes."""

    def answer(handler: BaseHTTPRequestHandler, _: Receiver) -> None:
        for piece in pieces:
            handler.wfile.write(piece)

    return answer


@contextmanager
def receiving(answer: Answer | None = None, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver on the loopback address."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            receiver.received.append(Received(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            with suppress(BrokenPipeError, ConnectionResetError):
                (answer or says(204))(self, receiver)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads, block_on_close = True, False
        request_queue_size = 128
        """With the usual 5, of many clients that come at once some are turned away."""

        def get_request(self) -> tuple[Any, Any]:
            request, address = super().get_request()
            receiver.connections += 1
            return (tls.wrap_socket(request, server_side=True) if tls else request), address

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that goes away is what is tested."""

    if tls is not None:
        tls.sni_callback = lambda _, name, __: receiver.asked_for.append(name)
    server = Server((LOOPBACK, 0), Handler)
    receiver.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def certified(folder: Path, *names: str) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS for these names or addresses, and the file of the authority that has signed its certificate."""
    now = datetime.datetime.now(datetime.UTC)
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def certificate(subject: str, public: Any, *extensions: tuple[x509.ExtensionType, bool]) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(_named(subject))
            .issuer_name(_named("test authority"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    signs = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    ca_file, pair = folder / "ca.pem", folder / "server.pem"
    basic = x509.BasicConstraints(ca=True, path_length=None)
    ca_file.write_bytes(certificate("test authority", authority.public_key(), (basic, True), (signs, True)))
    leaf = certificate("receiver", key.public_key(), (x509.SubjectAlternativeName([_general(name) for name in names]), False))
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pair.write_bytes(leaf + secret)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair)
    return tls, ca_file


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _general(name: str) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name)
