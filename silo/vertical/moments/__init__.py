"""Encrypted cross-moments: what the label silo and its partners do in the legs that carry them."""
