"""What a client of the embedded ClickHouse may not do: reach files and other servers with our rights.

A ClickHouse server confines `file()` to a directory and other servers to what its configuration allows, while our
password is a documented default. The engine checks most of it by the rights of clickhouse_users.xml; but the function
`file`, `INTO OUTFILE` and what names Python objects or programs it takes for its owner's. Those are found here by
their names, and what would hide a name is refused: words that only ClickHouse's own lexer can tell from strings.
"""

import re
from urllib.parse import urlsplit

# Enough of ClickHouse's lexer to find a statement's words outside of strings and comments; what it knows besides
# (here-documents, typographic quotes and spaces) is refused.
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
    rb"|filesystem|datalake|backup|disk|http|clickhouse|cassandra|arrowstream|bigquery|eval|queryrunner|ai)[a-z0-9]*"
)
_HARMLESS = {
    b"materialized", b"materialize", b"filesystemavailable", b"filesystemcapacity", b"filesystemunreserved",
    b"deltasum", b"deltasumtimestamp", b"urlhash", b"urlhierarchy", b"urlpathhierarchy", b"hivehash",
    b"kafkamurmurhash",
}  # fmt: skip
_FORBIDDEN_WORDS = {b"INFILE", b"OUTFILE", b"BACKUP", b"RESTORE", b"ATTACH", b"DICTIONARY"}
_STARTS_ONLY = {b"BACKUP", b"RESTORE", b"ATTACH"}
_UNCLEAR = re.compile(rb"[$\x80-\xff]")
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def forbidden(statement: bytes) -> str | None:
    """The word of a statement that would leave the database, None if there is none."""
    tokens = [token for token in TOKEN.finditer(statement) if not token["skip"]]
    for index, token in enumerate(tokens):
        if _UNCLEAR.match(token["other"] or b"") or b"\\" in (token["quoted"] or b""):
            return token[0].decode(errors="replace")
        word = token["word"] or (token["quoted"] or b"")[1:-1]
        if not word:
            continue
        if _takes_columns(tokens, index, word.lower()):
            return word.decode(errors="replace")
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


def _takes_columns(tokens: list[re.Match[bytes]], index: int, word: bytes) -> bool:
    """Whether the word is a table function that takes columns as a string: their defaults are expressions.

    The other function `format` begins with a pattern, in which there are braces.
    """
    if word == b"function":
        return index > 0 and (tokens[index - 1]["word"] or b"").upper() in (b"INTO", b"TABLE")
    if word not in (b"format", b"input") or index + 2 >= len(tokens) or tokens[index + 1]["other"] != b"(":
        return False
    return word == b"input" or b"{" not in (tokens[index + 2]["string"] or b"")


def is_foreign(origin: str | None, host: str | None) -> bool:
    """Whether a request comes from a web page of another machine, also of one whose name was bound to loopback."""
    names = [urlsplit(origin).hostname if origin is not None else "localhost"]
    names.append(urlsplit(f"//{host}").hostname if host else "localhost")
    page, server = names
    return page not in _LOOPBACK or not (server in _LOOPBACK or re.fullmatch(r"[0-9.]+|[0-9a-f:]+", server or ""))
