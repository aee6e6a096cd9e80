"""The SQL of the store, a module per subject."""
