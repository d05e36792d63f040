"""Where events are kept: one store with one writer and several readers, each in a process of its own."""
