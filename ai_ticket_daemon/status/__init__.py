"""How the daemon does, for everybody who shows it."""
