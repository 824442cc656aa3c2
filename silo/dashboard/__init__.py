"""A silo for its own people and their auditors: pages that only read."""
