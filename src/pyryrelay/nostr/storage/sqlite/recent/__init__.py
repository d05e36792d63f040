"""The newest events, which are not in the indexes yet: how the writer indexes them, and how readers find them.

An event is in the table ``recent`` or in all indexes, never in both and never in neither: every transaction leaves it
so. ``store.indexed_seq`` grows with each step from one to the other.
"""
