"""What systemd gives the daemon and is told by it."""
