"""The command ``pyryrelay nostr``: import, export and care of the store, with or without a running relay.

Whatever only reads opens the database itself, beside a running relay and at no cost to it. What changes something asks
the relay's writer, or opens the store if no relay runs. `actions` is the relay's side of that.
"""
