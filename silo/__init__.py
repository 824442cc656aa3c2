"""The only code that sees rows: data, models, the agent, and the one exit."""
