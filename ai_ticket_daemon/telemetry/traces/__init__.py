"""Spans: noted down on the loop, made and sent by a thread."""
