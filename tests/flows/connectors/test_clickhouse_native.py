"""The wire format, byte for byte; that ClickHouse reads it is tested with the sink."""

import pytest

from flows.connectors.clickhouse_native import Column, native_block


def test_bytes() -> None:
    columns = [Column("s", "String"), Column("t", "DateTime64(3)")]
    assert native_block(columns, [("ab", 1), ("é" * 100, -2)]) == (
        b"\x02\x02"
        b"\x01s\x06String\x02ab\xc8\x01" + "é".encode() * 100 + b"\x01t\x0dDateTime64(3)"
        b"\x01\0\0\0\0\0\0\0\xfe\xff\xff\xff\xff\xff\xff\xff"
    )


def test_integers_beyond_64_bits() -> None:
    with pytest.raises(OverflowError):
        native_block([Column("d", "Decimal64(8)")], [(1 << 63,)])


def test_rows_of_the_wrong_width() -> None:
    with pytest.raises(ValueError, match="zip"):
        native_block([Column("s", "String")], [("a", 1)])
