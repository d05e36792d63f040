"""Which instance of a cluster holds a key: soft state in Redis that each instance can write again."""
