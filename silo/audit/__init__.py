"""The auditor: what was spent on what, and whether anything was altered."""
