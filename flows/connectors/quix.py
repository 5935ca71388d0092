"""What we use of Quix Streams.

Importing it imports confluent-kafka's client of a schema registry, which nobody uses here, and that one Authlib's HTTP
client, which warns at every start that it wants another httpx. Authlib puts its own filter before all others.
"""

import contextlib
import warnings

with warnings.catch_warnings():
    with contextlib.suppress(ImportError):
        from authlib.deprecate import AuthlibDeprecationWarning

        warnings.simplefilter("ignore", AuthlibDeprecationWarning)
    from quixstreams import Application
    from quixstreams.checkpointing.exceptions import CheckpointConsumerCommitError
    from quixstreams.context import set_message_context
    from quixstreams.kafka.configuration import ConnectionConfig
    from quixstreams.kafka.exceptions import KafkaConsumerException
    from quixstreams.models import MessageContext
    from quixstreams.processing import ProcessingContext
    from quixstreams.sinks import BaseSink, SinkBackpressureError

__all__ = [
    "Application",
    "BaseSink",
    "CheckpointConsumerCommitError",
    "ConnectionConfig",
    "KafkaConsumerException",
    "MessageContext",
    "ProcessingContext",
    "SinkBackpressureError",
    "set_message_context",
]
