"""A Nostr relay: events from clients are checked, stored, found again and delivered live.

The layers of this room, each importing only those before it:

1. Pure modules at the top, such as ``events``, ``messages`` and ``filters``: what a text means.
2. ``policies``, pure as well: what is accepted, and how much of it.
3. ``storage``: where events are kept. It blocks, so only child processes and tools use it.
4. ``workers``: the child processes, and their clients in the relay's own process.
5. ``serving``: connections and subscriptions.
6. ``application`` and ``running``: the protocol in one running relay; ``mount``: what the rest of the relay sees.

``observe`` and ``tools`` stand beside the last two. Ids, keys and signatures are lower-case hex ``str``, as in JSON,
except in the store. Only ``mounts`` imports this room.
"""
