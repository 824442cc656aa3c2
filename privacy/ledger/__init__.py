"""What was spent, in a log that shows every tampering: :mod:`chain`, and the ledger upon it."""
