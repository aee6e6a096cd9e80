"""The HTTP surface: listeners, connections, routes, streams."""
