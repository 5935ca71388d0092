"""One chDB engine for many callers: each query has its own database, settings and parameters."""

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import chdb

from flows.domain.errors import TrackerError
from infra.local.clickhouse_guard import TOKEN, forbidden
from infra.stores import CLICKHOUSE_MEMORY_BYTES

_USERS = Path(__file__).with_name("clickhouse_users.xml")
_CONFIG = "<clickhouse><users_config>users.xml</users_config></clickhouse>\n"
_FILES = "_files"  # the engine's first database, which takes the names of files for tables: nobody may read those
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CODE = re.compile(r"Code: (\d+)\. (.*)", re.DOTALL)
_FORMAT_AT_END = re.compile(rb"\bFORMAT\s+([A-Za-z][A-Za-z0-9]*)(?:\s+SETTINGS\s[^;]*)?\s*;?\s*\Z", re.IGNORECASE)


class EngineError(TrackerError):
    """A query failed; `code` is ClickHouse's exception code and the text its message."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Query:
    """A statement with all that goes with it; `text` may end with the data of an INSERT."""

    text: bytes
    parameters: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    database: str = ""
    default_format: str = "TabSeparated"
    read_only: bool = False


@dataclass(frozen=True)
class Answer:
    """What came out, in `format` ("" where nothing comes out, as of an INSERT)."""

    body: bytes = b""
    format: str = ""
    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    written_bytes: int = 0
    elapsed_s: float = 0.0

    def summary(self) -> str:
        """The header X-ClickHouse-Summary: numbers as strings, as ClickHouse writes them."""
        numbers = {
            "read_rows": self.read_rows,
            "read_bytes": self.read_bytes,
            "written_rows": self.written_rows,
            "written_bytes": self.written_bytes,
            "total_rows_to_read": self.read_rows,
            "result_rows": self.written_rows,
            "result_bytes": len(self.body),
            "elapsed_ns": int(self.elapsed_s * 1e9),
        }
        return json.dumps({name: str(number) for name, number in numbers.items()})


def split_insert(text: bytes) -> tuple[bytes, str, bytes] | None:
    """(statement, format, data) of an `INSERT … FORMAT f` that is followed by its data, else None.

    `INSERT … VALUES`, `INSERT … SELECT` and every other statement are None: the engine reads those whole.
    """
    depth, words = 0, 0
    for token in TOKEN.finditer(text):
        if token["other"]:
            depth += {b"(": 1, b")": -1}.get(token["other"], 0)
        if not token["word"] or depth:
            continue
        word, words = token["word"].upper(), words + 1
        if (words == 1) != (word == b"INSERT") or word in (b"VALUES", b"SELECT", b"WITH", b"INFILE"):
            return None
        if word == b"FORMAT":
            named = re.match(rb"\s+([A-Za-z][A-Za-z0-9]*)[ \t\f]*;?\r?\n?", text[token.end() :])
            if not named or named[1].upper() == b"VALUES":
                return None
            return text[: token.start()], named[1].decode(), text[token.end() + named.end() :]
    return None


class Engine:
    """chDB on a directory of its own, `data`: a relative path, whose parent is the working directory.

    Each query gets a connection (about 1 ms): settings and database are state of the connection, so that
    queries of different clients can't see each other's, and run beside each other as on a ClickHouse server.
    """

    def __init__(self, data: Path) -> None:
        _make_default_database(data)
        config = data.with_name("engine.xml")
        config.write_text(_CONFIG)
        shutil.copyfile(_USERS, data.with_name("users.xml"))
        self._target = (
            f"{data}?config-file={config}&default_database={_FILES}&max_server_memory_usage={CLICKHOUSE_MEMORY_BYTES}"
        )
        self._keeper = chdb.connect(self._target)  # the engine lives as long as one connection does

    def close(self) -> None:
        """Close the engine's files; nothing may run any more."""
        self._keeper.close()

    def run(self, query: Query) -> Answer:
        """Execute one statement. Raises EngineError with ClickHouse's code."""
        insert = split_insert(query.text)
        if word := forbidden(insert[0] if insert else query.text):
            raise EngineError(
                497, f"Code: 497. DB::Exception: {word} is not for clients of this server. (ACCESS_DENIED)"
            )
        connection = chdb.connect(self._target)
        try:
            _configure(connection, query)
            return _insert(connection, *insert) if insert else _execute(connection, query)
        except RuntimeError as error:  # ChdbError is one
            raise _engine_error(error) from error
        finally:
            connection.close()


def _make_default_database(data: Path) -> None:
    """The database `default` as on a server; the engine connects to it, and by itself has one of files there.

    Ordinary: the engine loads it twice when it starts, which an Atomic one takes for a conflict.
    """
    if not (data / "metadata" / "default.sql").exists():
        connection = chdb.connect(str(data))
        connection.query("SET allow_deprecated_database_ordinary = 1")
        connection.query("DETACH DATABASE default")
        connection.query("CREATE DATABASE default ENGINE = Ordinary")
        connection.close()


def _configure(connection: Any, query: Query) -> None:
    if query.database:
        connection.query(f"USE `{query.database.replace('`', '')}`")
    for name, value in query.settings.items():
        if not _SETTING.fullmatch(name):
            raise EngineError(115, f"Code: 115. DB::Exception: Unknown setting '{name}'. (UNKNOWN_SETTING)")
        connection.query(f"SET {name} = {_quote(value)}")
    if query.read_only:
        connection.query("SET readonly = 2")


def _execute(connection: Any, query: Query) -> Answer:
    result = connection.query(query.text, query.default_format, params=dict(query.parameters))
    named = _FORMAT_AT_END.search(query.text[-500:])
    return Answer(
        body=result.bytes(),
        format=named[1].decode() if named else query.default_format,
        read_rows=result.storage_rows_read(),
        read_bytes=result.storage_bytes_read(),
        written_rows=result.rows_written(),
        written_bytes=result.bytes_written(),
        elapsed_s=result.elapsed(),
    )


def _insert(connection: Any, statement: bytes, input_format: str, data: bytes) -> Answer:
    try:
        text = statement.decode()
    except UnicodeDecodeError as error:
        raise EngineError(62, f"Code: 62. DB::Exception: Syntax error: {error}. (SYNTAX_ERROR)") from error
    with connection.send_insert(text, input_format) as inserter:
        if data:
            inserter.append(data)
        written = inserter.finish()
    return Answer(written_rows=written.rows_written, written_bytes=written.bytes_written, elapsed_s=written.elapsed)


def _quote(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _engine_error(error: RuntimeError) -> EngineError:
    found = _CODE.search(str(error))
    if not found:
        return EngineError(1002, f"Code: 1002. DB::Exception: {error}. (UNKNOWN_EXCEPTION)")
    return EngineError(int(found[1]), found[0])
