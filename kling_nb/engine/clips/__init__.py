"""A finished run's clip: fetched, kept, and fetched once more."""
