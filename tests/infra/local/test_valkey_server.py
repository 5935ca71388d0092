"""The embedded Valkey server."""

import redis


def test_memory_is_bounded_and_old_keys_make_room(valkey: str) -> None:
    host, _, port = valkey.partition(":")
    with redis.Redis(host, int(port), decode_responses=True) as client:
        assert client.config_get("maxmemory") == {"maxmemory": str(256 << 20)}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("bind")["bind"].split()[0] == "127.0.0.1"
