"""The ClickHouse dashboard: the latest rows of `crypto.market_tickers`, and a live chart of a price column."""
