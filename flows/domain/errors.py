"""The error tree of the suite's domain.

TrackerError
├── InvalidRecord          a record that can't be used: goes to the DLQ with the reason
├── InvalidSymbol          a symbol the exchange does not trade, or that can't be held
├── OutOfRange             an offset or time that the log does not hold (any more)
├── InvalidRange           a range that is empty, or names what is not there
├── TopicIsNewer           a recording older than what its topic holds: a log only grows at its end
├── NotAlone               another writer in a topic that is imported into
├── NoTopic                a topic that Kafka does not have (any more)
├── WrongLog               a snapshot taken from another Kafka cluster or topic
├── DeliveryFailed         a sink could not confirm what it wrote
└── ExchangeError
    ├── ExchangeUnreachable    no network, refused, timed out: retried
    ├── ExchangeBlocked        HTTP 451 or 403: this address may not use the exchange
    └── RateLimited            HTTP 429 or 418, with the seconds to wait
"""


class TrackerError(Exception):
    """Root of the errors this project raises on purpose."""


class InvalidRecord(TrackerError):
    """A record that can't be used; the message is the reason written to the DLQ."""


class InvalidSymbol(TrackerError):
    """A symbol the exchange does not trade, or that can't be held."""


class OutOfRange(TrackerError):
    """An offset or time that the log does not hold (any more)."""


class InvalidRange(TrackerError):
    """A range that is empty, or names what is not there."""


class TopicIsNewer(TrackerError):
    """A recording older than what its topic holds: a log only grows at its end."""


class NotAlone(TrackerError):
    """Another writer in a topic that is imported into: what one wrote may be too late beside the other's."""


class NoTopic(TrackerError):
    """A topic that Kafka does not have (any more)."""


class WrongLog(TrackerError):
    """A snapshot taken from another Kafka cluster or topic."""


class DeliveryFailed(TrackerError):
    """A sink could not confirm what it wrote."""


class ExchangeError(TrackerError):
    """The exchange did not do what it was asked for."""


class ExchangeUnreachable(ExchangeError):
    """No network, refused or timed out; worth another try."""


class ExchangeBlocked(ExchangeError):
    """HTTP 451 or 403: this address may not use the exchange."""


class RateLimited(ExchangeError):
    """HTTP 429 or 418; `retry_after_s` is how long to stay away."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
