"""Drop the connections of jailed addresses in the kernel."""
