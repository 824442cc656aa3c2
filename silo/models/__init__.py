"""Model families: what a silo adds up, and what becomes of the sum."""
