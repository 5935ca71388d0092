"""Every environment variable of the suite, once.

Only `main()`, `flow()` and `create_app()` build a `Settings`; everything else takes values.
Names are those of the original Go suite (contract section 8). Any secret can come from a file: `<NAME>_FILE`.
"""

import os
import re
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from infra.tls import Tls

SECRETS = ("JWT_SECRET", "JWT_PREVIOUS_SECRETS", "POSTGRES_PASSWORD", "CLICKHOUSE_PASSWORD")
EXAMPLE_JWT_SECRET = "change-me-change-me-change-me-change-me"  # noqa: S105 - the value of .env.example, refused outside ENV=local
TLS_PARTS = ("grpc", "postgres", "redis", "kafka", "clickhouse")
_ADDRESSES = (
    "redis_addr", "auth_service_addr", "socket_service_addr", "aggregator_addr", "ingest_addr", "clickhouse_addr",
    "server_addr", "address",
)  # fmt: skip
_GO_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def go_duration_seconds(value: Any) -> float:
    """Seconds of a duration as Go's `time.ParseDuration` reads it (`15m`, `1h30m`, `10s`); a bare number is seconds."""
    if isinstance(value, int | float):
        seconds = float(value)
    else:
        text = str(value).strip()
        parts = _GO_DURATION.findall(text)
        if parts and "".join(n + u for n, u in parts) == text:
            seconds = sum(float(n) * _GO_UNITS[u] for n, u in parts)
        elif re.fullmatch(r"\d+(\.\d+)?", text):
            seconds = float(text)
        else:
            raise ValueError(f"not a duration: {text!r} (use 15m, 168h or 10s)")
    if seconds <= 0:
        raise ValueError(f"a duration must be positive: {value!r}")
    return seconds


def split_address(address: str, default_port: int, default_host: str = "127.0.0.1") -> tuple[str, int]:
    """(host, port) of `host:port`, `:port`, `host`, `[::1]:port` or an http(s) URL."""
    text = re.sub(r"^[a-z]+://", "", address.strip()).rstrip("/")
    found = re.fullmatch(r"(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:]*))(?::(?P<port>\d{1,5}))?", text)
    if not found or int(found["port"] or 0) > 65535:
        raise ValueError(f"not an address: {address!r} (use host:port or :port)")
    host = found["six"] or found["host"] or default_host
    return host, int(found["port"] or default_port)


def join_address(host: str, port: int) -> str:
    """`host:port`, the host in brackets where it is IPv6; the opposite of `split_address`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _symbols(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(s.strip().upper() for s in value.split(",") if s.strip())
    return value


def _words(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(s.strip() for s in value.split(",") if s.strip())
    return value


def _proxies(words: tuple[str, ...]) -> tuple[str, ...]:
    if words == ("*",):
        return words
    for word in words:
        try:
            ip_network(word)
        except ValueError as error:
            raise ValueError(f"{word!r} is neither an address nor a network: {error}") from error
    return words


def _origins(words: tuple[str, ...]) -> tuple[str, ...]:
    """As browsers write them."""
    return tuple(word.rstrip("/").lower() for word in words)


def _local(port: int) -> Callable[[dict[str, Any]], str]:
    """The usual address of a neighbour on this machine, with PORT_OFFSET added."""
    return lambda settings: f"127.0.0.1:{port + settings['port_offset']}"


Port = Annotated[int, Field(ge=0, le=65535)]
Duration = Annotated[float, BeforeValidator(go_duration_seconds)]
Symbols = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_symbols)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]

Origins = Annotated[Words, AfterValidator(_origins)]
Proxies = Annotated[Words, AfterValidator(_proxies)]


class Settings(BaseSettings):
    """The environment, parsed; unset and empty variables take the defaults, wrong ones raise a ValidationError."""

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True)

    env: str = "local"
    log_level: str = "INFO"

    # Where services listen. SERVER_ADDR (as `:8088`) is the aggregator's and the dashboard's name for it.
    host: str = Field(default="127.0.0.1", validation_alias="BIND_HOST")
    http_port: Port | None = None
    grpc_port: Port | None = None
    server_addr: str | None = None
    health_port: Port = 0  # /livez, /readyz and /metrics of processes without an HTTP interface; 0: any free port
    address: str | None = None  # the socket service's, with its port in PORT
    port: Port | None = None
    port_offset: int = Field(default=0, ge=0, le=65535 - 50052)  # the highest port must stay one

    # PostgreSQL of the one service that reads this.
    postgres_host: str = "127.0.0.1"
    postgres_port: Port | None = None  # 5434 for the profile service, 5432 for authorization
    postgres_user: str = "postgres"
    postgres_password: SecretStr = SecretStr("postgres")
    postgres_db: str | None = None  # profile_db, auth_db

    jwt_secret: SecretStr | None = None
    jwt_previous_secrets: SecretStr | None = None  # comma-separated: they sign no more, but their tokens still run
    jwt_access_ttl: Duration = 15 * 60.0
    jwt_refresh_ttl: Duration = 168 * 3600.0

    redis_addr: str = Field(default_factory=_local(6379))
    auth_service_addr: str = Field(default_factory=_local(50051))
    socket_service_addr: str = Field(default_factory=_local(50052))
    aggregator_addr: str = Field(default_factory=_local(8088))
    ingest_addr: str = Field(default_factory=_local(8101))  # the aggregator asks there which streams really run

    brokers: str | None = None
    kafka_brokers: str | None = None
    kafka_topic: str | None = None
    kafka_group_id: str | None = None

    clickhouse_addr: str = Field(default_factory=_local(8123))
    clickhouse_user: str = "default"
    clickhouse_password: SecretStr = SecretStr("postgres")
    clickhouse_database: str = "crypto"
    clickhouse_table: str = "market_tickers"
    batch_size: int = Field(default=100, ge=1)
    batch_timeout: Duration = 10.0

    exchange: Literal["simulated", "binance"] = "simulated"
    exchange_ws_url: str | None = None  # defaults: VENUES in flows/venues
    exchange_rest_url: str | None = None
    symbols: Symbols = ()  # always-on symbols, uppercase; ("*",) is all that trade
    raw_retention_bytes: int = Field(default=10_000_000_000, ge=1)

    allowed_lateness_ms: int = Field(default=200, ge=0)
    revision_horizon: Duration = 30 * 60.0
    push_window: Duration = 0.05
    stale_after: Duration = 60.0
    allowed_origins: Origins = ()
    trusted_proxies: Proxies = ()  # addresses or networks whose X-Forwarded-For is believed
    http_workers: int = Field(default=1, ge=1, le=64)
    ws_ping_interval: Duration = 20.0  # a client that has not answered a ping within the same time is dropped
    ws_connections_per_user: int = Field(default=100, ge=0)  # 0: no limit
    ws_connections_per_address: int = Field(default=1000, ge=0)
    ws_limit_loopback: bool = False
    ws_replays_per_user: int = Field(default=2, ge=0)  # 0: none
    ws_replays: int = Field(default=20, ge=0)
    replay_settle: Duration = 12.0  # how old a recorded second must be to be replayed: BATCH_TIMEOUT and a bit

    # TLS to these neighbours, by PEM files (infra/tls.py); for gRPC servers and clients see `grpc_tls`.
    grpc_tls_ca: Path | None = None
    grpc_tls_cert: Path | None = None
    grpc_tls_key: Path | None = None
    postgres_tls_ca: Path | None = None
    postgres_tls_cert: Path | None = None
    postgres_tls_key: Path | None = None
    redis_tls_ca: Path | None = None
    redis_tls_cert: Path | None = None
    redis_tls_key: Path | None = None
    kafka_tls_ca: Path | None = None
    kafka_tls_cert: Path | None = None
    kafka_tls_key: Path | None = None
    clickhouse_tls_ca: Path | None = None
    clickhouse_tls_cert: Path | None = None
    clickhouse_tls_key: Path | None = None

    data_dir: Path = Path(".data")

    @model_validator(mode="before")
    @classmethod
    def _secrets_from_files(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in SECRETS:
            if path := os.environ.get(f"{name}_FILE"):
                try:
                    values[name.lower()] = Path(path).read_text(encoding="utf-8").strip()
                except OSError as error:
                    raise ValueError(f"{name}_FILE: {error}") from error
        return values

    @model_validator(mode="after")
    def _addresses(self) -> Self:
        for name in _ADDRESSES:
            if value := getattr(self, name):
                split_address(value, 0)
        _ = self.bootstrap_servers
        return self

    @model_validator(mode="after")
    def _certificates(self) -> Self:
        for part in TLS_PARTS:
            names = [f"{part.upper()}_TLS_{what}" for what in ("CA", "CERT", "KEY")]
            ca, cert, key = (getattr(self, name.lower()) for name in names)
            if (cert is None) != (key is None):
                raise ValueError(f"{names[1]} and {names[2]} go together")
            if cert and not ca and part != "grpc":
                raise ValueError(f"{names[1]} needs {names[0]}")
            for name, file in zip(names, (ca, cert, key), strict=True):
                if file and not file.is_file():
                    raise ValueError(f"{name}: there is no file {file}")
            Tls(ca, cert, key).check(part.upper())
        return self

    def tls(self, part: str) -> Tls | None:
        """The files for one of TLS_PARTS, or None for a connection without TLS."""
        found = Tls(*(getattr(self, f"{part}_tls_{what}") for what in ("ca", "cert", "key")))
        return None if found == Tls() else found

    def grpc_tls(self, *, server: bool) -> Tls | None:
        """For a gRPC server or client of ours. Raises ValueError where only the files of the other one are given."""
        found = self.tls("grpc")
        if found and server and not found.cert:
            raise ValueError("GRPC_TLS_CA: a gRPC server needs GRPC_TLS_CERT and GRPC_TLS_KEY too")
        if found and not server and not found.ca:
            raise ValueError("GRPC_TLS_CERT: a client of a gRPC server needs GRPC_TLS_CA too")
        return found

    @property
    def bootstrap_servers(self) -> str:
        """Kafka's `bootstrap.servers`: BROKERS, or KAFKA_BROKERS as the original's ETL named it."""
        given = self.brokers or self.kafka_brokers or f":{9092 + self.port_offset}"
        return ",".join(join_address(*split_address(one, 9092)) for one in given.split(","))

    @property
    def clickhouse_http(self) -> tuple[str, int]:
        """(host, port) of ClickHouse's HTTP interface; the native port 9000 is read as 8123 (callers warn)."""
        host, port = split_address(self.clickhouse_addr, 8123)
        return host, 8123 if port == 9000 else port

    def listen(self, default_port: int) -> tuple[str, int]:
        """(host, port) an HTTP service binds: HTTP_PORT, else SERVER_ADDR, else the default plus PORT_OFFSET."""
        if self.http_port is not None:
            return self.host, self.http_port
        if self.server_addr:
            return split_address(self.server_addr, default_port, self.host)
        return self.host, default_port + self.port_offset

    def listen_socket(self, default_port: int) -> tuple[str, int]:
        """(host, port) the socket service binds: ADDRESS (with or without a port) and PORT, else as `listen`."""
        usual = self.port or self.grpc_port or default_port + self.port_offset
        return split_address(self.address, usual, self.host) if self.address else (self.host, usual)

    def checked_jwt_secret(self) -> str:
        """JWT_SECRET, or a ValueError that says why it can't be used."""
        secret = self.jwt_secret.get_secret_value() if self.jwt_secret else ""
        if len(secret.encode()) < 32:
            raise ValueError("JWT_SECRET must have at least 32 bytes (make one: openssl rand -hex 32)")
        if secret == EXAMPLE_JWT_SECRET and self.env != "local":
            raise ValueError("JWT_SECRET is the example value; set your own (make one: openssl rand -hex 32)")
        return secret

    @property
    def previous_jwt_secrets(self) -> tuple[str, ...]:
        """The secrets before JWT_SECRET that tokens are still verified with."""
        text = self.jwt_previous_secrets.get_secret_value() if self.jwt_previous_secrets else ""
        return tuple(one.strip() for one in text.split(",") if one.strip())
