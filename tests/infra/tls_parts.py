"""Certificates made for a test, and a TLS end before a store that has none."""

import contextlib
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme

from infra.tls import Tls


@dataclass(frozen=True)
class Certificates:
    """Files of an authority and of one certificate of it, for 127.0.0.1 and localhost."""

    ca: Path
    cert: Path
    key: Path

    @property
    def tls(self) -> Tls:
        """Both sides of mutual TLS."""
        return Tls(self.ca, self.cert, self.key)

    def environment(self, part: str) -> dict[str, str]:
        """The variables of a part."""
        return {f"{part}_TLS_{name.upper()}": str(getattr(self, name)) for name in ("ca", "cert", "key")}


def make_certificates(directory: Path, *names: str) -> Certificates:
    """A new authority with one certificate, for `names` (127.0.0.1 and localhost)."""
    directory.mkdir()
    authority = trustme.CA()
    issued = authority.issue_cert(*(names or ("127.0.0.1", "localhost")))
    made = Certificates(directory / "ca.pem", directory / "cert.pem", directory / "key.pem")
    authority.cert_pem.write_to_path(str(made.ca))
    made.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(made.key))
    made.key.chmod(0o600)  # libpq wants it so
    return made


@contextlib.contextmanager
def tls_before(address: str, certificates: Certificates, *, postgres: bool = False) -> Iterator[int]:
    """A port that speaks TLS, only to clients with a certificate, and passes on to `address`.

    `postgres` first answers the client's request for TLS, as a PostgreSQL server does.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.cert, certificates.key)
    context.load_verify_locations(certificates.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    host, _, port = address.rpartition(":")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(client,), daemon=True).start()

        def serve(client: socket.socket) -> None:
            with contextlib.suppress(OSError), client, socket.create_connection((host, int(port))) as store:
                if postgres:
                    if client.recv(8)[4:] != (80877103).to_bytes(4, "big"):
                        return  # it would have gone on without TLS
                    client.sendall(b"S")
                with context.wrap_socket(client, server_side=True) as secure:
                    pump(secure, store)

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def pump(one: ssl.SSLSocket, other: socket.socket) -> None:
    while True:
        ready = [one] if one.pending() else select.select([one, other], [], [])[0]
        for sender in ready:
            if not (data := sender.recv(65536)):
                return
            (other if sender is one else one).sendall(data)
