"""May this plan run here: reasons against it, and what all members would accept."""
