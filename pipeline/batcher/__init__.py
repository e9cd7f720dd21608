"""Cuts requests, keeps them in flight, tries again, isolates bad rows."""
