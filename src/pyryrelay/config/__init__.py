"""Every option, declared once: how it is read, checked, documented, and what follows from it."""
