"""The pyrycode relay protocol: who is paired with whom, and what passes between them."""
