"""The providers' wires: one file each, pure functions of calls and replies."""
