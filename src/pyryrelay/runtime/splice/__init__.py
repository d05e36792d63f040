"""Two connections made into one: the bytes of each are passed on to the other."""
