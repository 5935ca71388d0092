CREATE TABLE IF NOT EXISTS {database}.{table}
(
    message_id String,
    event_type String,
    event_time DateTime64(3),
    receive_time DateTime64(3),
    symbol String,
    close_price Decimal64(8),
    open_price Decimal64(8),
    high_price Decimal64(8),
    low_price Decimal64(8),
    change_price Decimal64(8),
    change_percent Decimal64(8)
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(event_time)
ORDER BY (symbol, event_time)
SETTINGS non_replicated_deduplication_window = 1000;

-- A table made by the original suite has no deduplication of repeated inserts.
ALTER TABLE {database}.{table} MODIFY SETTING non_replicated_deduplication_window = 1000;
