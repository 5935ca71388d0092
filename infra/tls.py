"""TLS to and from our neighbours, by certificate files (PEM).

`<PART>_TLS_CA` names the authority that the other side must be certified by: a client then speaks TLS only, and a
gRPC server takes only clients with a certificate of it. `_TLS_CERT` and `_TLS_KEY` are our own certificate and its key.
Host names are always checked.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Tls:
    """Files of one connection; `key` is there exactly when `cert` is."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def check(self, part: str) -> None:
        """Raises ValueError, naming the variable, where the files are not what they should be; `part` as `GRPC`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        name = f"{part}_TLS_CA"
        try:
            if self.ca:
                context.load_verify_locations(self.ca)
            if self.cert and self.key:
                name = f"{part}_TLS_CERT, {part}_TLS_KEY"
                context.load_cert_chain(self.cert, self.key, password="")  # never ask at the terminal
        except (OSError, ValueError) as error:  # ValueError: the key is encrypted
            raise ValueError(f"{name}: can't be used: {error}") from error

    def server_context(self) -> ssl.SSLContext:
        """For a server of HTTP/2. Raises OSError for files that can't be used."""
        assert self.cert
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.cert, self.key)
        context.set_alpn_protocols(["h2"])
        if self.ca:
            context.load_verify_locations(self.ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def redis_options(self) -> dict[str, Any]:
        """Arguments of redis-py's clients, beside `ssl=True`."""
        options = {"ssl_ca_certs": str(self.ca), "ssl_check_hostname": True}
        return options | ({"ssl_certfile": str(self.cert), "ssl_keyfile": str(self.key)} if self.cert else {})

    def clickhouse_options(self) -> dict[str, Any]:
        """Arguments of clickhouse-connect's clients."""
        # strict: the certificate opens the connection, and who we are is still said by name and password.
        options = {"interface": "https", "ca_cert": str(self.ca), "tls_mode": "strict"}
        return options | ({"client_cert": str(self.cert), "client_cert_key": str(self.key)} if self.cert else {})

    def postgres_options(self) -> dict[str, str]:
        """libpq's parameters."""
        options = {"sslmode": "verify-full", "sslrootcert": str(self.ca)}
        return options | ({"sslcert": str(self.cert), "sslkey": str(self.key)} if self.cert else {})

    def kafka_options(self) -> dict[str, str]:
        """librdkafka's properties."""
        options = {"security.protocol": "ssl", "ssl.ca.location": str(self.ca)}
        own = {"ssl.certificate.location": str(self.cert), "ssl.key.location": str(self.key)}
        return options | (own if self.cert else {})


def grpc_server_credentials(tls: Tls) -> Any:
    """For grpcio's servers. Raises OSError for files that can't be read."""
    import grpc  # noqa: PLC0415 - only where it is spoken

    assert tls.cert
    assert tls.key
    pair = (tls.key.read_bytes(), tls.cert.read_bytes())
    ca = tls.ca.read_bytes() if tls.ca else None
    return grpc.ssl_server_credentials([pair], root_certificates=ca, require_client_auth=ca is not None)


def grpc_channel_credentials(tls: Tls) -> Any:
    """For grpcio's clients. Raises OSError for files that can't be read."""
    import grpc  # noqa: PLC0415

    assert tls.ca
    pair = (tls.key.read_bytes(), tls.cert.read_bytes()) if tls.key and tls.cert else (None, None)
    return grpc.ssl_channel_credentials(tls.ca.read_bytes(), *pair)


_kafka: dict[str, str] = {}


def use_kafka_tls(tls: Tls | None) -> None:
    """How this process connects to Kafka from now on; its clients are made in many places. `main()` calls it."""
    _kafka.clear()
    _kafka.update(tls.kafka_options() if tls else {})


def kafka_security() -> dict[str, Any]:
    """What every Kafka client of ours is made with."""
    return dict(_kafka)
