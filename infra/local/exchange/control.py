"""Control messages of a stream connection: SUBSCRIBE, UNSUBSCRIBE, LIST_SUBSCRIPTIONS, SET_PROPERTY, GET_PROPERTY.

{"method":"SUBSCRIBE","params":["btcusdt@aggTrade"],"id":1} → {"result":null,"id":1}; errors {"code":2,"msg":"…"}.
"""

import json
import re
from typing import Any

from infra.local.exchange.streams import Connection, Hub

_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_TEXT_ID = re.compile(r"[A-Za-z0-9]{1,36}")


class Refused(Exception):
    """A malformed request, with the exchange's code and message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def answer(text: str, connection: Connection, hub: Hub) -> str:
    """Carry a control message out and return the answer."""
    request_id: Any = None
    try:
        request = _parsed(text)
        request_id = _request_id(request)
        result = _carry_out(request, connection, hub)
    except Refused as refusal:
        error = {"code": refusal.code, "msg": str(refusal)}
        return json.dumps(error if request_id is None else {**error, "id": request_id}, separators=(",", ":"))
    return json.dumps({"result": result, "id": request_id}, ensure_ascii=False, separators=(",", ":"))


def _parsed(text: str) -> dict[str, Any]:
    try:
        request = json.loads(text)
    except json.JSONDecodeError as error:
        raise Refused(3, f"Invalid JSON: expected value at line {error.lineno} column {error.colno}") from error
    except RecursionError as error:
        raise Refused(3, "Invalid JSON: recursion limit exceeded") from error
    if not isinstance(request, dict):
        raise Refused(2, "Invalid request: invalid type, expected an object")
    return request


def _request_id(request: dict[str, Any]) -> int | str | None:
    value = request.get("id")
    is_number = isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    if value is None or is_number or (isinstance(value, str) and _TEXT_ID.fullmatch(value)):
        return value
    raise Refused(2, "Invalid request: request ID must be an unsigned integer")


def _carry_out(request: dict[str, Any], connection: Connection, hub: Hub) -> Any:
    method = request.get("method")
    if method is None:
        raise Refused(2, "Invalid request: missing field `method` at line 1 column 1")
    if method not in _METHODS:
        raise Refused(2, f"Invalid request: unknown variant `{method}`, expected one of {', '.join(_METHODS)}")
    if method == "LIST_SUBSCRIPTIONS":
        return list(connection.streams)
    params = request.get("params")
    if not isinstance(params, list):
        raise Refused(2, "Invalid request: invalid type, expected a sequence of `params`")
    if method in ("SUBSCRIBE", "UNSUBSCRIBE"):
        return _change(method, params, connection, hub)
    return _property(method, params, connection)


def _change(method: str, params: list[Any], connection: Connection, hub: Hub) -> None:
    if not params:
        raise Refused(2, "Invalid request: missing field `params` at line 1 column 1")
    if not all(isinstance(stream, str) for stream in params):
        raise Refused(2, "Invalid request: stream name must be a string")
    if method == "UNSUBSCRIBE":
        hub.unsubscribe(connection, params)
    elif not hub.subscribe(connection, params):
        raise Refused(2, "Invalid request: too many parameters")


def _property(method: str, params: list[Any], connection: Connection) -> Any:
    wanted = 2 if method == "SET_PROPERTY" else 1
    if len(params) > wanted:
        raise Refused(2, "Invalid request: too many parameters")
    if len(params) < wanted or not isinstance(params[0], str):
        raise Refused(2, "Invalid request: property name must be a string")
    if params[0] != "combined":
        raise Refused(0, "Unknown property")
    if method == "GET_PROPERTY":
        return connection.is_combined
    if not isinstance(params[1], bool):
        raise Refused(1, "Invalid value type: expected Boolean")
    connection.is_combined = params[1]
    return None
