"""What is looked at for clusters before the start."""
