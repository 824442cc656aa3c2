"""The private encoder: trained at a feature silo, frozen, its numbers released once."""
