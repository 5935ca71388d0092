"""The aggregator's errors.

AggregatorError
├── UnknownSymbol       the exchange has no such symbol
└── NotAvailable        Kafka, or the list of symbols, is away; nothing was changed that was not answered
"""


class AggregatorError(Exception):
    """Root of the service's errors."""


class UnknownSymbol(AggregatorError):
    """The exchange has no such symbol."""


class NotAvailable(AggregatorError):
    """Kafka, or the list of symbols, is away; worth another try after `retry_after_s`."""

    retry_after_s = 2
