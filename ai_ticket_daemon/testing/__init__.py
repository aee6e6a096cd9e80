"""Simulated servers that behave like the real ones on the wire, for tests and demonstrations."""
