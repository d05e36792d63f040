"""Child processes that store, query and verify, and their clients on the reactor's side.

Nothing here is imported by importing the package: a child loads only what its role needs.
"""
