"""A Bytewax sink that publishes records on Redis and keeps the newest under a key, in one atomic step."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.exceptions import BusyLoadingError, ConnectionError, TimeoutError
from redis.retry import Retry

from flows import drain
from flows.connectors.kafka_sink import Fields
from infra.tls import Tls

log = logging.getLogger(__name__)

# KEYS: last-value keys. ARGV: the number of fields that order the values, their names, then JSON and channel ("" for
# none) for each key.
# Replaces a last value only by a greater one, or where it is none of ours; publishes whatever comes, as revisions of
# older seconds matter too.
_PUBLISH = """
local fields = tonumber(ARGV[1])
local function newer(new, old)
  for i = 2, fields + 1 do
    local field = ARGV[i]
    if type(old[field]) ~= type(new[field]) then return true end
    if new[field] ~= old[field] then return new[field] > old[field] end
  end
  return false
end
for i, key in ipairs(KEYS) do
  local json, channel = ARGV[fields + 2 * i], ARGV[fields + 2 * i + 1]
  local last = redis.pcall('GET', key)
  local ours, old = pcall(cjson.decode, last)
  if not ours or type(old) ~= 'table' or newer(cjson.decode(json), old) then redis.call('SET', key, json) end
  if channel ~= '' then redis.call('PUBLISH', channel, json) end
end
"""
AT_ONCE = 500  # records of one call, which nobody else's may interrupt
_AWAY = (ConnectionError, TimeoutError, BusyLoadingError)


class Place(NamedTuple):
    """The Redis key that holds the newest of some records, and the channel they are published on."""

    key: str
    channel: str | None


@dataclass(frozen=True)
class Places:
    """Where records of JSON go: by their key, and the greater by these fields of the JSON is the newer."""

    of: Callable[[str], Place]
    order_by: tuple[str, ...]


class RedisSink(FixedPartitionedSink[Iterable[Fields], None]):
    """Items are (partition of the source as text, records)."""

    def __init__(self, host: str, port: int, parts: int, places: Places, tls: Tls | None = None) -> None:
        self._address = (host, port)
        self._tls = tls
        self._parts = parts
        self._places = places

    def list_parts(self) -> list[str]:
        """As many as the source has partitions."""
        return [str(part) for part in range(self._parts)]

    def part_fn(self, item_key: str) -> int:
        """The part whose name is the key."""
        return int(item_key)

    def build_part(self, _step_id: str, _for_part: str, _resume_state: None) -> "RedisSinkPart":
        """One part, with a connection of its own."""
        return RedisSinkPart(*self._address, self._places, self._tls)


class RedisSinkPart(StatefulSinkPartition[Iterable[Fields], None]):
    """Sends a batch and goes on while Redis works: its answers are waited for before the next, and by `snapshot`."""

    def __init__(self, host: str, port: int, places: Places, tls: Tls | None = None) -> None:
        self._where = f"{host}:{port}"
        # The waiting is done here, where it can be seen and a drain ends it: the client's own retries take a minute.
        kind = SSLConnection if tls else Connection
        self._connection: Connection = kind(
            host=host,
            port=port,
            socket_timeout=5,
            socket_connect_timeout=5,
            retry=Retry(NoBackoff(), retries=0),
            **(tls.redis_options() if tls else {}),
        )
        self._place = lru_cache(1 << 14)(lambda key: places.of(key.decode()))
        self._order = (len(places.order_by), *places.order_by)
        self._unanswered: list[list[Fields]] = []
        self._is_sent = True

    def write_batch(self, items: list[Iterable[Fields]]) -> None:
        """Publish all records; while Redis is away, wait and try again (a record may then come twice)."""
        self.snapshot()
        records = [*chain.from_iterable(items)]
        self._unanswered = [records[at : at + AT_ONCE] for at in range(0, len(records), AT_ONCE)]
        self._is_sent = False
        try:
            self._send()
        except _AWAY:
            self.snapshot()

    def snapshot(self) -> None:
        """Wait until all is published; while Redis is away, send it again."""
        pause, said = 0.1, False
        while self._unanswered:
            try:
                if not self._is_sent:
                    self._send()
                self._receive()
                if said:
                    log.info("redis at %s is back", self._where)
            except _AWAY as error:
                self._connection.disconnect()  # type: ignore[no-untyped-call]
                self._is_sent = False
                if drain.overdue():
                    drain.give_up(f"Redis at {self._where} is away: {error}")
                if not said:
                    log.warning("redis at %s is away, waiting: %s", self._where, error)
                    said = True
                drain.wait(pause)
                pause = min(pause * 2, 2.0)

    def close(self) -> None:
        """Leave Redis, and wait for nothing, as KafkaSinkPart's does."""
        self._connection.disconnect()  # type: ignore[no-untyped-call]

    def _send(self) -> None:
        for records in self._unanswered:
            places = [self._place(key) for _, key, *_ in records]
            keys = [place.key for place in places]
            values = chain.from_iterable(
                (json, place.channel or "") for (_, _, json, *_), place in zip(records, places, strict=True)
            )
            self._connection.send_command("EVAL", _PUBLISH, len(keys), *keys, *self._order, *values)  # type: ignore[no-untyped-call]
        self._is_sent = True

    def _receive(self) -> None:
        for _ in self._unanswered:
            self._connection.read_response()
        self._unanswered = []
