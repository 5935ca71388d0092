"""A Bytewax sink that publishes records on Redis and keeps the newest under a key, in one atomic step."""

import logging
from itertools import chain
from typing import NamedTuple

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.exceptions import BusyLoadingError, ConnectionError, TimeoutError
from redis.retry import Retry

from flows import drain
from flows.domain.errors import DeliveryFailed
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
AT_ONCE = 500  # items of one call, which nobody else's may interrupt
_AWAY = (ConnectionError, TimeoutError, BusyLoadingError)


class LastValue(NamedTuple):
    """A JSON record, the key that holds the newest, and the channel it is published on."""

    key: str
    channel: str | None
    json: bytes


class RedisSink(FixedPartitionedSink[list[LastValue], None]):
    """Items are (partition of the source as text, last values). Greater goes by `order_by`, fields of the JSON."""

    def __init__(self, host: str, port: int, parts: int, order_by: tuple[str, ...], tls: Tls | None = None) -> None:
        self._address = (host, port)
        self._tls = tls
        self._parts = parts
        self._order_by = order_by

    def list_parts(self) -> list[str]:
        """As many as the source has partitions."""
        return [str(part) for part in range(self._parts)]

    def part_fn(self, item_key: str) -> int:
        """The part whose name is the key."""
        return int(item_key)

    def build_part(self, _step_id: str, _for_part: str, _resume_state: None) -> "RedisSinkPart":
        """One part, with a connection of its own."""
        return RedisSinkPart(*self._address, self._order_by, self._tls)


class RedisSinkPart(StatefulSinkPartition[list[LastValue], None]):
    """Sends a batch and goes on while Redis works: its answers are waited for before the next, and by `snapshot`."""

    def __init__(self, host: str, port: int, order_by: tuple[str, ...], tls: Tls | None = None) -> None:
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
        self._order_by = order_by
        self._unanswered: list[list[LastValue]] = []
        self._is_sent = True

    def write_batch(self, items: list[list[LastValue]]) -> None:
        """Publish all items; while Redis is away, wait and try again (a record may then come twice)."""
        self.snapshot()
        values = [*chain.from_iterable(items)]
        self._unanswered = [values[at : at + AT_ONCE] for at in range(0, len(values), AT_ONCE)]
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
                    raise DeliveryFailed(f"Redis at {self._where} is away: {error}") from error
                if not said:
                    log.warning("redis at %s is away, waiting: %s", self._where, error)
                    said = True
                drain.wait(pause)
                pause = min(pause * 2, 2.0)

    def close(self) -> None:
        """Publish what is left, and close the connection."""
        self.snapshot()
        self._connection.disconnect()  # type: ignore[no-untyped-call]

    def _send(self) -> None:
        order = (len(self._order_by), *self._order_by)
        for items in self._unanswered:
            values = chain.from_iterable((json, channel or "") for _, channel, json in items)
            keys = [item.key for item in items]
            self._connection.send_command("EVAL", _PUBLISH, len(keys), *keys, *order, *values)  # type: ignore[no-untyped-call]
        self._is_sent = True

    def _receive(self) -> None:
        for _ in self._unanswered:
            self._connection.read_response()
        self._unanswered = []
