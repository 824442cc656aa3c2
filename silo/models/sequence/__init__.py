"""Networks that read a history in its order; see ``trunk`` for what they share."""
