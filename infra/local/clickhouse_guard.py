"""What a client of the embedded ClickHouse may not do: reach files and other servers with our rights.

A ClickHouse server confines `file()` to a directory and other servers to what its configuration allows. The engine in
this process has no such limits and no users to revoke them from, while the password is a documented default.
"""

import re
from urllib.parse import urlsplit

# Enough of ClickHouse's lexer to find a statement's words outside of strings and comments.
TOKEN = re.compile(
    rb"""(?P<skip> \s+ | --[^\n]* | \#[^\n]* | /\*.*?\*/ )
       | (?P<string> '(?:[^'\\]|\\.|'')*' )
       | (?P<quoted> "(?:[^"\\]|\\.|"")*" | `(?:[^`\\]|\\.|``)*` )
       | (?P<word> [A-Za-z_][A-Za-z0-9_]* )
       | (?P<other> . )""",
    re.VERBOSE | re.DOTALL,
)
# Table functions, table and database engines, and dictionary sources of these names; families by their beginning.
_OUTSIDE = re.compile(
    rb"(file|url|s3|gcs|cosn|oss|hdfs|azure|remote|mysql|materialized|postgresql|mongo|redis|sqlite|odbc|jdbc|kafka|nats"
    rb"|rabbitmq|executable|python|iceberg|delta|hudi|paimon|arrowflight|ytsaurus|hive|prometheus|embeddedrocksdb"
    rb"|filesystem|datalake|backup|disk|http|clickhouse|cassandra|arrowstream|bigquery|eval|queryrunner|ai)[a-z0-9_]*"
)
_HARMLESS = {
    b"materialized", b"materialize", b"filesystemavailable", b"filesystemcapacity", b"filesystemunreserved",
    b"deltasum", b"deltasumtimestamp", b"urlhash", b"urlhierarchy", b"urlpathhierarchy", b"hivehash",
    b"kafkamurmurhash",
}  # fmt: skip
_FORBIDDEN_WORDS = {b"INFILE", b"OUTFILE", b"BACKUP", b"RESTORE", b"ATTACH", b"DICTIONARY"}
_STARTS_ONLY = {b"BACKUP", b"RESTORE", b"ATTACH"}
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def forbidden(statement: bytes) -> str | None:
    """The word of a statement that would leave the database, None if there is none."""
    tokens = [token for token in TOKEN.finditer(statement) if not token["skip"]]
    for index, token in enumerate(tokens):
        word = token["word"] or (token["quoted"] or b"")[1:-1]
        if not word:
            continue
        upper = word.upper()
        if token["word"] and upper in _FORBIDDEN_WORDS and (upper not in _STARTS_ONLY or _begins(tokens, index)):
            return word.decode()
        if _OUTSIDE.fullmatch(word.lower()) and word.lower() not in _HARMLESS and _is_called(tokens, index):
            return word.decode(errors="replace")
    return None


def _begins(tokens: list[re.Match[bytes]], index: int) -> bool:
    return index == 0 or tokens[index - 1]["other"] == b";"


def _is_called(tokens: list[re.Match[bytes]], index: int) -> bool:
    """Whether the word is a function's or follows `ENGINE =`."""
    if index + 1 < len(tokens) and tokens[index + 1]["other"] == b"(":
        return True
    before = [(token["word"] or token["other"] or b"").upper() for token in tokens[max(0, index - 2) : index]]
    return before[-1:] == [b"ENGINE"] or before == [b"ENGINE", b"="]


def is_foreign(origin: str | None, host: str | None) -> bool:
    """Whether a request comes from a web page of another machine, also of one whose name was bound to loopback."""
    names = [urlsplit(origin).hostname if origin is not None else "localhost"]
    names.append(urlsplit(f"//{host}").hostname if host else "localhost")
    page, server = names
    return page not in _LOOPBACK or not (server in _LOOPBACK or re.fullmatch(r"[0-9.]+|[0-9a-f:]+", server or ""))
