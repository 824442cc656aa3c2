"""The only home of TenSEAL: BFV at one fixed set of parameters, one bare ciphertext per frame.

``parameters`` and ``frames`` are plain Python, ``contexts`` and ``summation`` native but keyless: the
coordinator's code may import them. ``keyholder`` can decrypt and may not be imported there. An import
contract and a test of the running coordinator keep it so.
"""
