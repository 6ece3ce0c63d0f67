"""When each run on its way is read, and which are read together."""
