"""A run's folder and the process that works in it."""
