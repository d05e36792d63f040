"""What ``pyryrelay probe`` is made of: connections that are opened step by step, and explanations of what goes wrong.

The scripts themselves, of which messages go where, are those of the protocols
(`pyryrelay.protocol_options.Probe`).
"""
