"""Keep the jail in a file and apply it in the kernel."""
