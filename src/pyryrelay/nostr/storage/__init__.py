"""Where events are kept: the interface of stores, who may see what, and the stores themselves.

Everything here blocks, so only child processes and tools use it.
"""
