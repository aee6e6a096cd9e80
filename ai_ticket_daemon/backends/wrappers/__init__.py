"""Clients around a client: what this daemon adds to each, whatever server it talks to."""
