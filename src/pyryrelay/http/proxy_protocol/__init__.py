"""The header of the PROXY protocol, versions 1 and 2."""
