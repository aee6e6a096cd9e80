"""``--check-config``: does all that a start does, short of listening."""
