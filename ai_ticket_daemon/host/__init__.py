"""What the daemon takes from its host: memory, descriptors."""
