"""What happens between a peer and the store: sessions, publishing, subscriptions, live delivery, what waits for peers.

Everything here runs on the reactor. `connection.Connection` is the state of one peer that the others share,
`relay.Relay` the state of the whole relay. `session` is the top, `outgoing`, `recent` and `counts` are the bottom.
"""
