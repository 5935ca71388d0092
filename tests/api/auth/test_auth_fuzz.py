"""Made-up messages to the authorization service: an answer of the documented ones, and it goes on."""

import contextlib
import os
from typing import Any, TypeVar

import grpc
import pytest
from auth_parts import PASSWORD, Auth
from hypothesis import given, settings
from hypothesis import strategies as st

from protos import auth_pb2

T = TypeVar("T")
LONG = os.environ.get("API_TESTS") == "long"
DOCUMENTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
SERVICE = auth_pb2.DESCRIPTOR.services_by_name["AuthService"]
METHODS = {method.name: method.input_type for method in SERVICE.methods}
# What protobuf takes as a string: any text without half characters.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
FUZZ = settings(
    max_examples=1000 if LONG else 12,
    deadline=None,
    derandomize=not LONG,
)


@st.composite
def messages(draw: st.DrawFn, method: str) -> bytes:
    """A message of the method's type with any texts; those of an account that exists among them."""
    serialized: bytes = _message(draw, METHODS[method]).SerializeToString()
    return serialized


def _message(draw: st.DrawFn, descriptor: Any) -> Any:
    made = getattr(auth_pb2, descriptor.name)()
    for field in descriptor.fields:
        if field.message_type is not None:
            if draw(st.booleans()):
                getattr(made, field.name).CopyFrom(_message(draw, field.message_type))
        else:
            setattr(made, field.name, draw(TEXT | st.sampled_from(["fuzzed", PASSWORD, "127.0.0.1", "::1"])))
    return made


def made_up(strategy: st.SearchStrategy[T]) -> list[T]:
    """They are made before they are sent: Hypothesis runs outside of the event loop."""
    found: list[T] = []

    @FUZZ
    @given(strategy)
    def make(one: T) -> None:
        found.append(one)

    make()
    return found


async def status(auth: Auth, method: str, message: bytes) -> grpc.StatusCode:
    call = auth.channel.unary_unary(f"/{SERVICE.full_name}/{method}")
    try:
        await call(message, timeout=30)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("method", METHODS)
async def test_fuzzed_messages(auth: Auth, method: str) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError):  # it is there from the method before
        await auth.stub.Register(auth_pb2.RegisterRequest(name="fuzzed", password=PASSWORD))
    for message in made_up(messages(method)):
        assert await status(auth, method, message) in DOCUMENTED, message
    # It goes on, for others than whoever sends this: failed logins slow down the address they come from.
    other = f"not-{method}".lower()
    await auth.stub.Register(auth_pb2.RegisterRequest(name=other, password=PASSWORD))
    await auth.stub.Login(auth_pb2.LoginRequest(name=other, password=PASSWORD, caller={"address": "192.0.2.200"}))


async def test_fuzzed_bytes(auth: Auth) -> None:
    for number, message in enumerate(made_up(st.binary(max_size=300))):
        method = sorted(METHODS)[number % len(METHODS)]
        assert await status(auth, method, message) in DOCUMENTED, message
    assert await status(auth, "Login", b"\xff\xff") == grpc.StatusCode.INVALID_ARGUMENT
    assert await status(auth, "Nothing", b"") == grpc.StatusCode.UNIMPLEMENTED
    assert await status(auth, "Logout", b"") == grpc.StatusCode.OK
