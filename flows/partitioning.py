"""Which partition Kafka's `murmur2_random` partitioner gives a key, as Java's default does."""

from functools import cache

_M = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Kafka's murmur2 as an unsigned 32-bit integer (org.apache.kafka.common.utils.Utils.murmur2)."""
    length = len(data)
    hashed = (0x9747B28C ^ length) & _MASK
    for at in range(0, length - length % 4, 4):
        word = int.from_bytes(data[at : at + 4], "little") * _M & _MASK
        word = (word ^ word >> 24) * _M & _MASK
        hashed = (hashed * _M & _MASK) ^ word
    if rest := data[length - length % 4 :]:
        hashed = ((hashed ^ int.from_bytes(rest, "little")) * _M) & _MASK
    hashed = (hashed ^ hashed >> 13) * _M & _MASK
    return hashed ^ hashed >> 15


@cache
def partition_of(key: str, partitions: int) -> int:
    """The partition of a key in a topic with so many."""
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions
