"""The pipeline: from an accepted event to its outcome."""
