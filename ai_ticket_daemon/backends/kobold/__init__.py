"""What only a KoboldCPP has: its probe, its abort, its counters, the guard against cut prompts."""
