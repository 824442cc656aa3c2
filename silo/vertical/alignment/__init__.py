"""Who is in common, and at which slot everybody stands: the first legs of every vertical job."""
