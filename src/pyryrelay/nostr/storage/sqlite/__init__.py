"""The store in an SQLite file. ``schema`` describes the tables."""
