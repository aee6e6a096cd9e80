"""Bytes to and from one server: the connection, the reply, its body in pieces."""
