"""Programs in other languages that answer requests."""
