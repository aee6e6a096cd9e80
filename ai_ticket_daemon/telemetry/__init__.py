"""Logs, metrics and traces: they look on and are never in the way."""
