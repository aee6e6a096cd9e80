"""Log lines: what they look like and where they go."""
