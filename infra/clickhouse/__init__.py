"""The ClickHouse schema: numbered migrations and their runner."""
