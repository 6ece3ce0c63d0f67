"""The lifecycle of a run."""
