"""The answers of several workers as the answer of one relay."""
