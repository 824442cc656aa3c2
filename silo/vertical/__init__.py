"""Different data about the same people: what only the silos of a vertical plan do."""
