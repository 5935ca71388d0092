-- Every revision as it comes from the topic `binance.secondstat`; merges keep the highest one of a second.
CREATE TABLE IF NOT EXISTS {database}.second_stats_revisions
(
    symbol String,
    timestamp DateTime64(3, 'UTC'),
    open Decimal128(8),
    high Decimal128(8),
    low Decimal128(8),
    close Decimal128(8),
    volume Decimal128(8),
    quote_volume Decimal256(16),
    trade_count UInt64,
    taker_buy_volume Decimal128(8),
    taker_buy_quote_volume Decimal256(16),
    first_trade_id Int64,
    last_trade_id Int64,
    revision UInt32
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(timestamp)
ORDER BY (symbol, timestamp)
SETTINGS non_replicated_deduplication_window = 1000;

-- What readers use: each second once, its highest revision, merged or not.
CREATE VIEW IF NOT EXISTS {database}.second_stats AS
SELECT
    symbol, timestamp, open, high, low, close, volume, quote_volume, trade_count, taker_buy_volume,
    taker_buy_quote_volume, first_trade_id, last_trade_id, revision
FROM {database}.second_stats_revisions FINAL;

-- Candles of the seconds as they are now, so that a revision replaces what it revises. Conditions on symbol and
-- timestamp reach the primary key through both views.
CREATE VIEW IF NOT EXISTS {database}.candles_1m AS
SELECT
    s.symbol AS symbol,
    toStartOfMinute(s.timestamp) AS timestamp,
    argMin(s.open, s.timestamp) AS open,
    max(s.high) AS high,
    min(s.low) AS low,
    argMax(s.close, s.timestamp) AS close,
    sum(s.volume) AS volume,
    sum(s.quote_volume) AS quote_volume,
    sum(s.trade_count) AS trade_count,
    sum(s.taker_buy_volume) AS taker_buy_volume,
    sum(s.taker_buy_quote_volume) AS taker_buy_quote_volume,
    argMin(s.first_trade_id, s.timestamp) AS first_trade_id,
    argMax(s.last_trade_id, s.timestamp) AS last_trade_id,
    count() AS seconds
FROM {database}.second_stats AS s
GROUP BY symbol, timestamp;

CREATE VIEW IF NOT EXISTS {database}.candles_1h AS
SELECT
    s.symbol AS symbol,
    toStartOfHour(s.timestamp) AS timestamp,
    argMin(s.open, s.timestamp) AS open,
    max(s.high) AS high,
    min(s.low) AS low,
    argMax(s.close, s.timestamp) AS close,
    sum(s.volume) AS volume,
    sum(s.quote_volume) AS quote_volume,
    sum(s.trade_count) AS trade_count,
    sum(s.taker_buy_volume) AS taker_buy_volume,
    sum(s.taker_buy_quote_volume) AS taker_buy_quote_volume,
    argMin(s.first_trade_id, s.timestamp) AS first_trade_id,
    argMax(s.last_trade_id, s.timestamp) AS last_trade_id,
    count() AS seconds
FROM {database}.second_stats AS s
GROUP BY symbol, timestamp;
