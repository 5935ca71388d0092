"""The wire format, byte for byte; that ClickHouse reads it is tested with the sink."""

import pytest

from flows.connectors.clickhouse_native import Column, native_block


def test_bytes() -> None:
    columns = [
        Column("s", "String"),
        Column("t", "DateTime64(3)"),
        Column("q", "Decimal256(16)"),
        Column("r", "UInt32"),
    ]
    assert native_block(columns, [["ab", "é" * 100], [1, -2], [1 << 128, -1], [7, 8]]) == (
        b"\x04\x02"
        b"\x01s\x06String\x02ab\xc8\x01" + "é".encode() * 100 + b"\x01t\x0dDateTime64(3)"
        b"\x01\0\0\0\0\0\0\0\xfe\xff\xff\xff\xff\xff\xff\xff"
        b"\x01q\x0eDecimal256(16)" + (1 << 128).to_bytes(32, "little") + b"\xff" * 32 + b"\x01r\x06UInt32"
        b"\x07\0\0\0\x08\0\0\0"
    )


@pytest.mark.parametrize("texts", [[], ["", "a"], ["é", "ab"], ["x" * 127, "y"], ["x" * 128, "y"], ["x" * 300]])
def test_texts_as_their_length_and_bytes(texts: list[str]) -> None:
    body = native_block([Column("s", "String")], [texts]).partition(b"String")[2]
    read = []
    while body:
        at, length = 0, 0
        while True:
            length |= (body[at] & 127) << 7 * at
            at += 1
            if body[at - 1] < 128:
                break
        read.append(body[at : at + length].decode())
        body = body[at + length :]
    assert read == texts


@pytest.mark.parametrize(("kind", "value"), [("Decimal64(8)", 1 << 63), ("Decimal128(8)", 1 << 127), ("UInt64", -1)])
def test_integers_out_of_range(kind: str, value: int) -> None:
    with pytest.raises(OverflowError):
        native_block([Column("d", kind)], [[value]])


def test_a_column_too_many() -> None:
    with pytest.raises(ValueError, match="zip"):
        native_block([Column("s", "String")], [["a"], ["b"]])
