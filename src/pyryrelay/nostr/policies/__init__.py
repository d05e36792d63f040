"""The policies of the Nostr relay: what it accepts and refuses, as pure functions. PURE.

Each module has factories that take limits and return a policy: a function of an event (or of the filters of a message)
and its `Context` that returns a `Refused`, or None. `pyryrelay.nostr.policies.chain` puts them into the order of the
specification, and takes policies of a Python user as well.
"""
