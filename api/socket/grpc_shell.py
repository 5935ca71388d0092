"""gRPC on grpclib, where many messages can go out in one write.

grpcio takes about 40 µs of CPU a message, whatever its size; here a batch of 256 costs as much (docs/adr/0006).
This is the only module that touches what grpclib does not publish, hence its exact pin.
"""

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpclib.config import Configuration
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol
from grpclib.server import Server, Stream

MAX_REQUEST_BYTES = 64 * 1024

Request = TypeVar("Request", bound=Message)
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name


class GrpcServer(Server):
    """grpclib's server, which can close its connections too."""

    def __init__(self, handlers: Collection[Any], config: Configuration) -> None:
        super().__init__(handlers, config=config)
        self._protocols: weakref.WeakSet[H2Protocol] = weakref.WeakSet()

    def _protocol_factory(self) -> H2Protocol:
        protocol = super()._protocol_factory()
        self._protocols.add(protocol)
        return protocol

    async def close_gracefully(self, within_s: float) -> None:
        """Stop listening and cancel what runs; clients close their connections when told to, or we do."""
        self.close()
        connected = [one for one in self._protocols if hasattr(one, "connection") and not one.connection.is_closing()]
        for protocol in connected:
            protocol.connection._connection.close_connection()
            protocol.connection.flush()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not all(one.connection.is_closing() for one in connected):  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.01)
        for protocol in connected:
            protocol.processor.close("the server has stopped")


async def read_request(stream: Stream[Request, Any], kind: type[Request]) -> Request:
    """The call's only message. Raises GRPCError: INVALID_ARGUMENT, UNIMPLEMENTED (compressed), RESOURCE_EXHAUSTED."""
    prefix = await stream._stream.recv_data(5)
    if len(prefix) < 5:
        raise GRPCError(Status.INVALID_ARGUMENT, "no message")
    if prefix[0]:
        raise GRPCError(Status.UNIMPLEMENTED, "a compressed message")
    length = int.from_bytes(prefix[1:], "big")
    if length > MAX_REQUEST_BYTES:
        raise GRPCError(Status.RESOURCE_EXHAUSTED, f"a request may have at most {MAX_REQUEST_BYTES} bytes")
    try:
        return kind.FromString(await stream._stream.recv_data(length))
    except DecodeError as error:
        raise GRPCError(Status.INVALID_ARGUMENT, f"not a {kind.DESCRIPTOR.full_name}") from error


async def send_frames(stream: Stream[Any, Any], frames: bytes) -> None:
    """Send messages that are framed already; waits while the client does not read."""
    await stream._stream.send_data(frames)


class _Context:
    """As much of grpcio's context as its health service uses."""

    def __init__(self, stream: Stream[Any, Any]) -> None:
        self.write = stream.send_message

    async def abort(self, code: grpc.StatusCode, details: str = "") -> NoReturn:
        raise GRPCError(Status(code.value[0]), details)


class Health:
    """grpcio's own health service; `servicer.set` says how things are."""

    def __init__(self) -> None:
        self.servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # its stubs lack it

    async def _check(self, stream: Stream[Any, Any]) -> None:
        request = await read_request(stream, health_pb2.HealthCheckRequest)
        await stream.send_message(await self.servicer.Check(request, _Context(stream)))

    async def _watch(self, stream: Stream[Any, Any]) -> None:
        request = await read_request(stream, health_pb2.HealthCheckRequest)
        await self.servicer.Watch(request, _Context(stream))

    def __mapping__(self) -> dict[str, Handler]:
        kinds = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
        return {
            f"/{HEALTH}/Check": Handler(self._check, Cardinality.UNARY_UNARY, *kinds),
            f"/{HEALTH}/Watch": Handler(self._watch, Cardinality.UNARY_STREAM, *kinds),
        }


class Reflection:
    """grpcio's own reflection service, of `names` and itself."""

    def __init__(self, *names: str) -> None:
        self._servicer = reflection.aio.ReflectionServicer((*names, reflection.SERVICE_NAME))  # type: ignore[attr-defined]

    async def _info(self, stream: Stream[Any, Any]) -> None:
        async for answer in self._servicer.ServerReflectionInfo(_requests(stream), None):
            await stream.send_message(answer)

    def __mapping__(self) -> dict[str, Handler]:
        kinds = reflection_pb2.ServerReflectionRequest, reflection_pb2.ServerReflectionResponse
        return {
            f"/{reflection.SERVICE_NAME}/ServerReflectionInfo": Handler(self._info, Cardinality.STREAM_STREAM, *kinds)
        }


async def _requests(stream: Stream[Any, Any]) -> AsyncIterator[Any]:
    async for request in stream:
        yield request


def server_streaming(
    function: Callable[[Stream[Any, Any]], Awaitable[None]], request: type[Message], response: type[Message]
) -> Handler:
    """A method that takes one message and answers with a stream."""
    return Handler(function, Cardinality.UNARY_STREAM, request, response)
