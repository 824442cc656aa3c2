"""Encrypted cross-moments ``Z^T Y`` of one silo's labels and another's features, in CKKS.

``parameters``, ``frames`` and ``noise`` are plain Python; ``contexts`` and ``feature`` native but keyless;
``label`` holds the key, and nothing else here may import it.
"""
