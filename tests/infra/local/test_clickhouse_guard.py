"""Clients of the embedded ClickHouse stay inside it."""

from pathlib import Path

import httpx
import pytest

from infra.local.clickhouse_guard import forbidden, is_foreign


def ask(clickhouse: str, query: str, **headers: str) -> httpx.Response:
    url = f"http://{clickhouse}/?user=default&password=postgres"
    return httpx.post(url, content=query.encode(), headers=headers, timeout=60)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM file('{path}', 'LineAsString')",
        "SELECT * FROM FILE ('{path}', 'LineAsString')",
        "SELECT * FROM `file`('{path}', 'LineAsString')",
        "SELECT * FROM \"file\" /* x */ ('{path}', 'LineAsString')",
        "SELECT file('{path}')",
        "SELECT 1; SELECT * FROM\nfile\n('{path}', 'LineAsString')",
        "CREATE TABLE default.leak (line String) ENGINE = File('LineAsString', '{path}')",
        "CREATE TABLE default.leak (line String) ENGINE=`File`(LineAsString)",
        "SELECT 1 INTO OUTFILE '{path}.out'",
        "INSERT INTO default.leak FROM INFILE '{path}' FORMAT LineAsString",
        "INSERT INTO FUNCTION file('{path}.out', 'TSV', 'x UInt8') VALUES (1)",
        "INSERT INTO FUNCTION file('{path}.out', 'TSV', 'x UInt8') FORMAT TSV\n1\n",
        "SELECT * FROM '{path}'",
        "SELECT * FROM default.`{path}`",
        "SELECT * FROM _files.`{path}`",
        "SELECT * FROM file\u00a0('{path}', 'LineAsString')",
        "SELECT * FROM `fil\\x65`('{path}', 'LineAsString')",
        "SELECT \"fil\\x65\"('{path}')",
        "SELECT $x$ -- $x$, file('{path}')",
        "SELECT ‘'’, file('{path}'), ‘'’",
        "SELECT 1 FORMAT Template SETTINGS format_template_resultset = '{path}'",
        "SELECT 1 AS a FORMAT Protobuf SETTINGS format_schema = '{path}:X'",
        "SELECT 1 SETTINGS additional_result_filter = 'throwIf(1, file(''{path}''))'",
        "SELECT * FROM system.one SETTINGS additional_table_filters = {'system.one': 'file(''{path}'') = 1' }",
        "SELECT * FROM format(JSONEachRow, concat('x Int8, y String DEFAULT fi', 'le(''{path}'')'), '{\"x\":1}')",
        "SELECT * FROM format('JSONEachRow', 'x Int8, y String DEFAULT file(''{path}'')', '{\"x\":1}')",
        "INSERT INTO FUNCTION null('x Int8, y String DEFAULT file(''{path}'')') SELECT 1",
        "SET dialect = 'kusto'",
        "CREATE DATABASE f ENGINE = Filesystem('/')",
        "CREATE USER other",
        "SYSTEM SHUTDOWN",
        "SYSTEM KILL",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
        "SELECT * FROM urlCluster('x', 'http://127.0.0.1:1/')",
        "SELECT * FROM remote('127.0.0.1', system.one)",
        "SELECT * FROM python('x')",
        "SELECT * FROM executable('x.sh', 'TSV', 'x UInt8')",
        "BACKUP DATABASE default TO File('{path}.backup')",
        "SELECT 1; ATTACH TABLE t FROM '{path}' (x UInt8) ENGINE = MergeTree ORDER BY x",
        "CREATE DATABASE d ENGINE = SQLite('{path}')",
        "CREATE DICTIONARY d (x UInt64) PRIMARY KEY x SOURCE(FILE(path '{path}' format 'TSV')) LAYOUT(FLAT()) LIFETIME(0)",
    ],
)
def test_files_and_other_servers_are_out_of_reach(clickhouse: str, tmp_path: Path, query: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a secret\n")
    answer = ask(clickhouse, query.replace("{path}", str(secret)))
    # Not granted, a setting that can't be changed, or no such table.
    assert answer.headers.get("X-ClickHouse-Exception-Code") in ("497", "452", "60"), answer.text
    assert "a secret" not in answer.text
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 'file(x)', file FROM (SELECT 1 AS file) -- url(",
        "SELECT /* file('x') */ count() FROM numbers(3) WHERE 'INTO OUTFILE' != ''",
        "SELECT deltaSum(number), URLHash('x'), materialize(1) FROM numbers(3)",
        "CREATE TEMPORARY TABLE file_sizes (url String, disk UInt8)",
        "WITH url_visits (a) AS (SELECT 1) SELECT format('{} of {}', 'a', '币') AS \"名\", input FROM (SELECT 1 AS input)",
        "SELECT 'file(x) INTO OUTFILE $x$ …' AS `a b`, count() FROM numbers(3) WHERE toString(number) LIKE 'a%'",
        "SELECT domain('http://x'), path('http://x/y')",
    ],
)
def test_ordinary_queries_are_not_disturbed(clickhouse: str, query: str) -> None:
    answer = ask(clickhouse, query)
    assert answer.status_code == 200, answer.text


def test_settings_in_the_address_are_no_way_around(clickhouse: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a secret\n")
    for query, parameter, code in (
        ("SELECT 1 FORMAT Template", "format_template_resultset", "452"),
        ("SELECT * FROM {x:Identifier}", "param_x", "60"),
    ):
        parameters = {"user": "default", "password": "postgres", parameter: str(secret)}
        answer = httpx.post(f"http://{clickhouse}/", params=parameters, content=query.encode(), timeout=60)
        assert answer.headers["X-ClickHouse-Exception-Code"] == code
        assert "a secret" not in answer.text


def test_what_is_inserted_is_not_read_as_a_statement(clickhouse: str) -> None:
    assert ask(clickhouse, "CREATE TABLE default.notes (note String) ENGINE = Memory").status_code == 200
    assert (
        ask(clickhouse, "INSERT INTO default.notes FORMAT TSV\nfile('/etc/passwd') INTO OUTFILE\n").status_code == 200
    )
    assert ask(clickhouse, "SELECT note FROM default.notes").text == "file(\\'/etc/passwd\\') INTO OUTFILE\n"


def test_pages_of_other_machines_have_no_access(clickhouse: str) -> None:
    port = clickhouse.rpartition(":")[2]
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": f"evil.example:{port}"}):
        assert ask(clickhouse, "SELECT 1", **headers).status_code == 403
        preflight = httpx.options(f"http://{clickhouse}/", headers=headers)
        assert preflight.status_code == 403
        assert "access-control-allow-origin" not in preflight.headers
    assert ask(clickhouse, "SELECT 1", Origin="http://localhost:8082").text == "1\n"


@pytest.mark.parametrize(
    ("origin", "host", "foreign"),
    [
        (None, None, False),
        (None, "localhost:8123", False),
        ("http://127.0.0.1:8082", "127.0.0.1:8123", False),
        ("http://[::1]:8082", "[::1]:8123", False),
        (None, "10.0.0.5:8123", False),
        ("http://10.0.0.5", "127.0.0.1", True),
        ("", "127.0.0.1", True),
        (None, "name.example", True),
    ],
)
def test_who_is_foreign(origin: str | None, host: str | None, foreign: bool) -> None:
    assert is_foreign(origin, host) is foreign


def test_the_word_is_named() -> None:
    assert forbidden(b"SELECT * FROM Url('x')") == "Url"
