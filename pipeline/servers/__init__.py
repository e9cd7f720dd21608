"""Servers: what they speak, how they are reached, and how much they are asked."""
