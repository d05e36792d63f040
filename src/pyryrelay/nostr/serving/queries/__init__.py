"""The queries of one connection: REQ, COUNT and CLOSE (spec sections 7 and 8).

`querying` takes the messages, `turns` decides when a query begins and how much it may send, `scan` and `counting` are
the two kinds of queries, and `running` is what these have in common.
"""
