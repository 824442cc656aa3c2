"""One person in session: consent, the sealed question, and the list."""
