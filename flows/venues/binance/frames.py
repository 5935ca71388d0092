"""WebSocket frames out of bytes (RFC 6455, section 5.2), sans-I/O, as far as the fast path goes."""

WHOLE_TEXT = 0x81  # FIN and opcode text, no extension
MAX_FRAME = 16 * 2**20  # bytes

Piece = tuple[bool, bytes]


def split_frames(data: bytes) -> tuple[list[Piece], bytes, bool]:
    """Cut bytes that begin with a frame: (pieces, the beginning of the next frame, whether to stop cutting).

    A piece is (True, payload) for a whole text message, (False, frame) for any other frame. Where a frame breaks the
    rules, the rest of the bytes is one piece and nothing that comes after it can be cut.
    """
    pieces: list[Piece] = []
    at, size = 0, len(data)
    while size - at >= 2:
        length = data[at + 1]
        start = at + 2
        if length >= 126:
            if length > 127:  # masked, which a server must not do
                pieces.append((False, data[at:]))
                return pieces, b"", True
            start += 2 if length == 126 else 8
            if start > size:
                break
            length = int.from_bytes(data[at + 2 : start], "big")
            if length > MAX_FRAME:
                pieces.append((False, data[at:]))
                return pieces, b"", True
        end = start + length
        if end > size:
            break
        if data[at] == WHOLE_TEXT:
            pieces.append((True, data[start:end]))
        else:
            pieces.append((False, data[at:end]))
        at = end
    return pieces, data[at:] if at else data, False
