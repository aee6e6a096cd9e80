"""The parts that ``app.py`` starts, each built with all that belongs to it."""
