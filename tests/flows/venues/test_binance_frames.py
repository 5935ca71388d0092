"""Frames cut out of bytes, however these arrive, as the library's own parser reads them."""

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from flows.venues.binance.frames import split_frames

SIZES = st.sampled_from([0, 1, 125, 126, 127, 300, 65_535, 65_536])


@given(st.lists(st.tuples(st.sampled_from([Opcode.TEXT, Opcode.PING, Opcode.PONG]), SIZES), max_size=8), st.data())
def test_every_message_is_found_whole(kinds, data):
    frames = [Frame(opcode, b"x" * (size if opcode is Opcode.TEXT else min(size, 125))) for opcode, size in kinds]
    wire = b"".join(frame.serialize(mask=False) for frame in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    pieces, rest = [], b""
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        found, rest, broken = split_frames(rest + wire[start:end])
        assert not broken
        pieces += found
    assert not rest
    assert pieces == [
        (True, frame.data) if frame.opcode is Opcode.TEXT else (False, frame.serialize(mask=False)) for frame in frames
    ]


def test_fragments_and_other_kinds_are_left_to_the_library():
    for frame in (Frame(Opcode.TEXT, b"a", fin=False), Frame(Opcode.CONT, b"b"), Frame(Opcode.BINARY, b"c"),
                  Frame(Opcode.CLOSE, b"\x03\xe8")):  # fmt: skip
        wire = frame.serialize(mask=False)
        assert split_frames(wire) == ([(False, wire)], b"", False)


def test_what_breaks_the_rules_goes_to_the_library_whole():
    good = Frame(Opcode.TEXT, b"x").serialize(mask=False)
    for bad in (b"\x81\x85", b"\x81\x7f" + (2**40).to_bytes(8, "big")):
        assert split_frames(good + bad + good) == ([(True, b"x"), (False, bad + good)], b"", True)


@given(st.binary())
def test_no_byte_is_lost(data):
    pieces, rest, _ = split_frames(data)
    assert sum(len(piece) for _, piece in pieces) + len(rest) <= len(data)
