"""Seeded bugs, each of which a test must notice."""
