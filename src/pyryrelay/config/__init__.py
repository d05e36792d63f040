"""All options. Each one is declared once: how it is read, checked and documented, and what follows from it."""
