"""Runs that workers send: which they are, and the queue that wakes who does."""
