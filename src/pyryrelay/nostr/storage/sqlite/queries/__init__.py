"""Queries of the SQLite store: choose an index, merge its entries, match their events, and send or count them.

planning <- entries <- merging <- matching <- scanning, counting
"""
