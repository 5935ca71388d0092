"""The socket service's errors.

SocketError
├── InvalidRequest    an unknown symbol, or a start that can't be meant
├── OutOfLog          a start offset that the log does not hold
├── FellBehind        the client's next record has left the log's retention
└── NotAvailable      Kafka or the list of symbols is away, or the server stops
"""


class SocketError(Exception):
    """Root of the service's errors."""


class InvalidRequest(SocketError):
    """An unknown symbol, or a start that can't be meant; the message names it."""


class OutOfLog(SocketError):
    """A start offset that the log does not hold; the message names those it does."""


class FellBehind(SocketError):
    """The client's next record has left the log's retention; the message names the earliest that is left."""


class NotAvailable(SocketError):
    """Kafka or the list of symbols is away, or the server stops; worth another call."""
