"""A simulated exchange that speaks Binance's spot market-data protocol, and is as strict.

    trade        the record all parts speak of
    market       seeded random walks        recording   recorded frames, moved to now
    history      every trade, on disk       tickers     rolling 24 hours
    faults       what goes wrong on demand  engine      source → faults → history → streams, every 10 ms
    streams      subscriptions, fan-out     session, control, wire   the WebSocket side
    rest         /api/v3                    klines, params, exchange_info   its parts
    limits       messages, connections, request weight
    app          all of it wired            simulation  /sim: faults, rate, state

It imports nothing of the project's other packages: what works against it must not work by agreement.
"""
