"""What a silo does in each phase of a job; one module a stretch of it, one function a duty."""
