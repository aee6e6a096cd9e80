"""Where events live: the port, and what implements it."""
