"""What an event is, how it is read from a request, and how it ends."""
