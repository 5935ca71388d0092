"""Where the parts are that a command asks: those the environment names, else those of the running stack."""

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaException

from flows.domain.errors import TrackerError
from infra.settings import Settings


def kafka_address(settings: Settings, exchange: str | None = None) -> str:
    """`bootstrap.servers`: BROKERS, else the running stack's (of `exchange`, if given), else the usual port."""
    if settings.brokers or settings.kafka_brokers:
        return settings.bootstrap_servers
    return address_of("kafka", settings, exchange) or settings.bootstrap_servers


def address_of(part: str, settings: Settings, exchange: str | None = None) -> str | None:
    """The address of a part of the running stack (of `exchange`, if given); None where there is none."""
    from tracker.config import running_homes  # noqa: PLC0415 - looks at processes; not needed where BROKERS is set

    for home, state in running_homes(settings)[:1]:
        if exchange is None or home.name == exchange:
            return next((one.address for one in state.parts if one.name == part), None)
    return None


@contextmanager
def kafka_problems(brokers: str) -> Iterator[None]:
    """Kafka's own errors as a TrackerError that says where it was asked."""
    try:
        yield
    except KafkaException as error:
        raise TrackerError(f"Kafka at {brokers}: {error.args[0].str()}") from error


@contextmanager
def clickhouse_problems(server: object) -> Iterator[None]:
    """The same for ClickHouse."""
    from clickhouse_connect.driver.exceptions import ClickHouseError  # noqa: PLC0415 - not for every command

    try:
        yield
    except ClickHouseError as error:
        raise TrackerError(f"ClickHouse at {server}: {str(error).splitlines()[0][:300]}") from error
