"""``archipel audit attack``: adversaries at work on what a real job left in a recording. Reads, never writes.

One module an attack. Nothing here is imported by an agent: a silo under a charter has no code path to a
recording, to canaries or to another party's secrets (import contract, tested).
"""
