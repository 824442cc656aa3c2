"""Plans: one job as data, what it costs, how it is drafted and shown."""
