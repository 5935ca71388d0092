"""ClickHouse's HTTP interface over chDB, by the clients that people use."""

import base64
import gzip
import json
import signal
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import httpx
import lz4.frame
import pytest
import zstandard
from clickhouse_connect.driver.exceptions import DatabaseError

from infra.local.clickhouse import clickhouse as clickhouse_part
from infra.local.clickhouse_engine import split_insert
from infra.local.clickhouse_http import decompress
from infra.local.part import free_port, spawn, stop, wait_ready


def client_of(address: str, **options: Any) -> Any:
    host, _, port = address.partition(":")
    return clickhouse_connect.get_client(host=host, port=int(port), **{"password": "postgres", **options})


@pytest.fixture
def http(clickhouse: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{clickhouse}", auth=("default", "postgres")) as client:
        yield client


@pytest.fixture
def table(clickhouse: str, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"t_{request.node.name.split('[')[0]}"
    client = client_of(clickhouse)
    client.command(
        f"CREATE TABLE {name} (a UInt32, b String) ENGINE = MergeTree ORDER BY a "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    yield name
    client.command(f"DROP TABLE {name}")


def test_clickhouse_connect_with_its_defaults(clickhouse: str, table: str) -> None:
    client = client_of(clickhouse)
    rows = [(n, f"row {n}") for n in range(20_000)]
    client.insert(table, rows, column_names=["a", "b"])
    assert client.query(f"SELECT a, b FROM {table} ORDER BY a").result_rows == rows
    found = client.query(f"SELECT b FROM {table} WHERE a = {{a:UInt32}} AND b = {{b:String}}", {"a": 7, "b": "row 7"})
    assert found.result_rows == [("row 7",)]
    assert client.command(f"SELECT count() FROM {table}") == 20_000


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_every_compression_of_clickhouse_connect(clickhouse: str, table: str, compress: bool | str) -> None:
    client = client_of(clickhouse, compress=compress)
    rows = [(n, "x" * 100) for n in range(1000)]
    client.insert(table, rows, column_names=["a", "b"])
    assert client.query(f"SELECT a, b FROM {table} ORDER BY a").result_rows == rows


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_an_insert_of_many_blocks_is_stored_whole(clickhouse: str, table: str, compress: bool | str) -> None:
    """Above 2 MB clickhouse-connect sends several blocks, each compressed by itself."""
    client = client_of(clickhouse, compress=compress)
    numbers = list(range(100_000))
    summary = client.insert(table, [numbers, ["x" * 100] * len(numbers)], ["a", "b"], column_oriented=True)
    assert summary.written_rows == len(numbers)
    assert client.query(f"SELECT count(), uniqExact(a) FROM {table}").result_rows == [(len(numbers), len(numbers))]


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("zstd", zstandard.ZstdCompressor().compress),
        ("lz4", lz4.frame.compress),
    ],
)
def test_frames_of_a_compressed_body(encoding: str, encode: Callable[[bytes], bytes]) -> None:
    assert decompress(b"".join(encode(part) for part in (b"one ", b"two ", b"three")), encoding) == b"one two three"
    assert decompress(b"", encoding) == b""
    for wrong in (encode(b"one")[:-3], encode(b"one") + b"?", encode(b"one") + encode(b"two")[:-3], b"???"):
        with pytest.raises(ValueError, match=f"The body is not {encoding}"):
            decompress(wrong, encoding)


def test_the_database_of_a_client(clickhouse: str) -> None:
    client_of(clickhouse).command("CREATE DATABASE IF NOT EXISTS elsewhere")
    client = client_of(clickhouse, database="elsewhere")
    assert client.command("SELECT currentDatabase()") == "elsewhere"
    assert client_of(clickhouse).command("SELECT currentDatabase()") == "default"


def test_deduplication_token_decides(clickhouse: str, table: str) -> None:
    client = client_of(clickhouse)
    for token in ("one", "one", "two"):
        client.insert(table, [(1, "x")], column_names=["a", "b"], settings={"insert_deduplication_token": token})
    assert client.command(f"SELECT count() FROM {table}") == 2


def test_settings_of_one_query_do_not_reach_the_next(http: httpx.Client) -> None:
    show = "SELECT getSetting('max_result_rows')"
    assert http.post("/", params={"max_result_rows": "77"}, content=show).text == "77\n"
    assert http.post("/", content=show).text == "0\n"


def test_default_output_is_tab_separated(http: httpx.Client) -> None:
    answer = http.get("/", params={"query": "SELECT 1, 'a'"})
    assert answer.text == "1\ta\n"
    assert answer.headers["X-ClickHouse-Format"] == "TabSeparated"
    assert answer.headers["X-ClickHouse-Query-Id"]


def test_output_formats(http: httpx.Client) -> None:
    answer = http.post("/", content="SELECT 1 AS one FORMAT JSONEachRow")
    assert answer.json() == {"one": 1}
    assert answer.headers["X-ClickHouse-Format"] == "JSONEachRow"
    assert http.post("/", params={"default_format": "CSV"}, content="SELECT 'x'").text == '"x"\n'


def test_query_in_the_url_and_data_in_the_body(http: httpx.Client, table: str) -> None:
    for statement, data in [
        (f"INSERT INTO {table} (a, b) FORMAT JSONEachRow", b'{"a":1,"b":"FORMAT VALUES"}\n{"a":2,"b":"y"}'),
        (f"INSERT INTO {table} VALUES", b"(3, 'z')"),
        (f"INSERT INTO {table} FORMAT TSV", b"4\tw\n"),
        (f"INSERT INTO {table} SELECT 5, 'v'", b""),
    ]:
        answer = http.post("/", params={"query": statement}, content=data)
        assert answer.status_code == 200, answer.text
        assert int(json.loads(answer.headers["X-ClickHouse-Summary"])["written_rows"]) > 0
    assert http.post("/", content=f"SELECT groupArray(a) FROM {table}").text == "[1,2,3,4,5]\n"


def test_gzipped_body(http: httpx.Client, table: str) -> None:
    body = gzip.compress(f"INSERT INTO {table} FORMAT CSV\n1,one\n2,two\n".encode())
    http.post("/", content=body, headers={"Content-Encoding": "gzip"}).raise_for_status()
    assert http.post("/", content=f"SELECT count() FROM {table}").text == "2\n"


def test_parameters_are_not_sql(http: httpx.Client) -> None:
    text = "it's \\ {x} ; DROP"
    answer = http.post("/", params={"param_text": text, "default_format": "TSVRaw"}, content="SELECT {text:String}")
    assert answer.text == text + "\n"


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("SELECT * FROM missing", 404, 60),
        ("SELEC 1", 400, 62),
        ("SELECT throwIf(1)", 500, 395),
        ("SELECT 1 SETTINGS nonsense = 1", 404, 115),
        ("INSERT INTO missing FORMAT TSV\n1\n", 404, 60),
    ],
)
def test_errors_have_clickhouses_status_and_code(http: httpx.Client, query: str, status: int, code: int) -> None:
    answer = http.post("/", content=query)
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (status, str(code))
    assert answer.text.startswith(f"Code: {code}. DB::Exception:")


def test_unparsable_data_is_an_error_and_stores_nothing(http: httpx.Client, table: str) -> None:
    answer = http.post("/", content=f"INSERT INTO {table} FORMAT TSV\n1\tok\nnot a number\tx\n")
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (400, "27")
    assert http.post("/", content=f"SELECT count() FROM {table}").text == "0\n"


def test_a_statement_that_is_not_utf_8_is_a_syntax_error(http: httpx.Client, table: str) -> None:
    answer = http.post("/", content=f"INSERT INTO {table} /* ".encode() + b"\xff */ FORMAT TSV\n1\tx\n")
    assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (400, "62")
    http.post("/", content=f"INSERT INTO {table} FORMAT TSV\n1\t".encode() + b"\xff\n").raise_for_status()
    assert http.post("/", content=f"SELECT hex(b) FROM {table}").text == "FF\n"


def test_get_is_read_only(http: httpx.Client, table: str) -> None:
    answer = http.get("/", params={"query": f"INSERT INTO {table} VALUES (1, 'a')"})
    assert answer.headers["X-ClickHouse-Exception-Code"] == "164"


def test_credentials(clickhouse: str) -> None:
    basic = base64.b64encode(b"default:postgres").decode()
    for accepted in (
        {"headers": {"Authorization": f"Basic {basic}"}},
        {"headers": {"X-ClickHouse-User": "default", "X-ClickHouse-Key": "postgres"}},
        {"params": {"user": "default", "password": "postgres"}},
    ):
        assert httpx.post(f"http://{clickhouse}/", content="SELECT 1", **accepted).text == "1\n"
    for refused in ({}, {"params": {"password": "wrong"}}, {"headers": {"X-ClickHouse-User": "other"}}):
        answer = httpx.post(f"http://{clickhouse}/", content="SELECT 1", **refused)
        assert (answer.status_code, answer.headers["X-ClickHouse-Exception-Code"]) == (403, "516")
    with pytest.raises(DatabaseError, match="516"):
        client_of(clickhouse, password="wrong")


def test_liveness_needs_no_password(clickhouse: str) -> None:
    for path in ("/", "/ping", "/replicas_status"):
        assert httpx.get(f"http://{clickhouse}{path}").text == "Ok.\n"


def test_browsers_may_ask_from_other_origins(http: httpx.Client) -> None:
    headers = {"Origin": "http://localhost:8082"}
    preflight = http.options("/", headers={**headers, "Access-Control-Request-Method": "POST"})
    assert preflight.headers["Access-Control-Allow-Origin"] == "*"
    assert "authorization" in preflight.headers["Access-Control-Allow-Headers"]
    asked = http.post("/", params={"add_http_cors_header": "1"}, content="SELECT 1", headers=headers)
    assert asked.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Origin" not in http.post("/", content="SELECT 1", headers=headers).headers


def test_a_slow_query_does_not_block_the_server(http: httpx.Client, clickhouse: str) -> None:
    slow = threading.Thread(target=lambda: http.post("/", content="SELECT sleep(2)", timeout=10))
    slow.start()
    assert httpx.get(f"http://{clickhouse}/ping", timeout=1).text == "Ok.\n"
    assert http.post("/", content="SELECT 1", timeout=1.5).text == "1\n"
    slow.join()


def test_data_survives_stop_and_kill(tmp_path: Path) -> None:
    part = clickhouse_part(tmp_path / "data", free_port())
    part.prepare()
    for ending in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        process = spawn(part, tmp_path / "log")
        wait_ready(part, process)
        client = client_of(part.address)
        client.command("CREATE TABLE IF NOT EXISTS kept (a UInt32) ENGINE = MergeTree ORDER BY a")
        client.insert("kept", [(1,)], column_names=["a"])
        count = client.command("SELECT count() FROM kept")
        client.close()
        process.send_signal(ending)
        assert process.wait(10) == (0 if ending is signal.SIGTERM else -9)
    assert count == 3


def test_one_server_a_directory(tmp_path: Path) -> None:
    part = clickhouse_part(tmp_path / "data", free_port())
    other = clickhouse_part(tmp_path / "data", free_port())
    part.prepare()
    process = spawn(part, tmp_path / "log")
    try:
        wait_ready(part, process)
        second = spawn(other, tmp_path / "other")
        assert second.wait(20) == 1
        assert "another server uses" in (tmp_path / "other").read_text()
    finally:
        stop(part, process)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"INSERT INTO t FORMAT Native\n\x01\x02", (b"INSERT INTO t ", "Native", b"\x01\x02")),
        (b"insert into t (a, `FORMAT x`) format TSV\r\n1\n", (b"insert into t (a, `FORMAT x`) ", "TSV", b"1\n")),
        (b"/* FORMAT CSV */ INSERT INTO t FORMAT JSON {}", (b"/* FORMAT CSV */ INSERT INTO t ", "JSON", b"{}")),
        (b"INSERT INTO t SETTINGS a='FORMAT x' FORMAT CSV 1", (b"INSERT INTO t SETTINGS a='FORMAT x' ", "CSV", b"1")),
        (b"INSERT INTO t VALUES (1)", None),
        (b"INSERT INTO t SELECT 1 FORMAT JSON", None),
        (b"SELECT 1 FORMAT Native", None),
        (b"", None),
    ],
)  # fmt: skip
def test_split_insert(text: bytes, expected: tuple[bytes, str, bytes] | None) -> None:
    assert split_insert(text) == expected
