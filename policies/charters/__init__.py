"""Charters: who the parties are to each other, and how that changes."""
