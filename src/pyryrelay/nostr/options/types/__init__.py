"""The types of Nostr's options; see `pyryrelay.config.types` for what a type is. Equal values have equal texts."""
