"""Solving for the BFV key as if encryption had no error: linear algebra in ``Z_q[X]/(X^N+1)``.

A symmetric BFV ciphertext of ``m`` is ``(c0, c1)`` with ``c0 + c1 s = round(q m / t) + e``. Whoever knows
``m`` and may set ``e = 0`` solves for the key by one division. With an error in every coefficient the result
is uniform garbage; a ternary result is the key. No key is needed here and none is held.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from tenseal import sealapi

from privacy.encryption.contexts import seal_context, seal_parameters
from privacy.encryption.frames import FrameError, FrameKind, check_frame
from privacy.encryption.parameters import DATA_PRIME
from privacy.packing import PLAIN_MODULUS, SLOTS_PER_FRAME, Integers

_Residues = list[int]
_N = SLOTS_PER_FRAME


def solve_for_key(frame: bytes, slots: Integers) -> Integers:
    """The key under which this frame holds these slots, if it was encrypted without error.

    Args:
        frame: one full frame.
        slots: 4096 int64 in ``[0, t)``: what it is known to hold.

    Returns:
        4096 coefficients, centred. Ternary (-1, 0, 1) only if the error was zero.

    Raises:
        FrameError: not a full frame.
    """
    if check_frame(frame) is not FrameKind.FULL:
        raise FrameError("a key is solved for in a full frame")
    words = np.frombuffer(frame, "<u8", 2 * _N, offset=len(FrameKind.FULL.prefix)).tolist()
    scaled = scaled_message(slots)
    left = _transform([(a - b) % DATA_PRIME for a, b in zip(scaled, words[:_N], strict=True)])
    right = _transform(words[_N:])
    quotient = [a * pow(b, -1, DATA_PRIME) % DATA_PRIME if b else 0 for a, b in zip(left, right, strict=True)]
    found = np.array(_inverse(quotient), dtype=np.int64)
    return np.where(found > DATA_PRIME // 2, found - DATA_PRIME, found)


def is_ternary(coefficients: Integers) -> bool:
    """Whether these are the coefficients of a key, and not garbage."""
    return bool((np.abs(coefficients) <= 1).all())


def scaled_message(slots: Integers) -> _Residues:
    """``round(q m / t)`` of the polynomial that encodes these slots, as SEAL scales it."""
    encoder, plaintext = sealapi.BatchEncoder(seal_context(seal_parameters())), sealapi.Plaintext()
    encoder.encode(np.where(slots > PLAIN_MODULUS // 2, slots - PLAIN_MODULUS, slots).tolist(), plaintext)
    message = [plaintext[index] for index in range(plaintext.coeff_count())]
    message += [0] * (_N - len(message))
    return [(DATA_PRIME * m + (PLAIN_MODULUS + 1) // 2) // PLAIN_MODULUS for m in message]


def multiply(left: _Residues, right: _Residues) -> _Residues:
    """Product of two polynomials modulo ``X^N + 1`` and ``q``."""
    product = zip(_transform(left), _transform(right), strict=True)
    return _inverse([a * b % DATA_PRIME for a, b in product])


def _transform(values: _Residues) -> _Residues:
    """Values at the odd powers of a primitive 2N-th root of unity."""
    root = _root()
    twisted, power = [], 1
    for value in values:
        twisted.append(value * power % DATA_PRIME)
        power = power * root % DATA_PRIME
    return _fourier(twisted, root * root % DATA_PRIME)


def _inverse(values: _Residues) -> _Residues:
    back = pow(_root(), -1, DATA_PRIME)
    power = pow(_N, -1, DATA_PRIME)
    found = []
    for value in _fourier(values, back * back % DATA_PRIME):
        found.append(value * power % DATA_PRIME)
        power = power * back % DATA_PRIME
    return found


def _fourier(values: _Residues, root: int) -> _Residues:
    """Cooley and Tukey's transform, by halves."""
    if len(values) == 1:
        return values
    square = root * root % DATA_PRIME
    even, odd = _fourier(values[::2], square), _fourier(values[1::2], square)
    turned, power = [], 1
    for value in odd:
        turned.append(value * power % DATA_PRIME)
        power = power * root % DATA_PRIME
    sums = [(a + b) % DATA_PRIME for a, b in zip(even, turned, strict=True)]
    return sums + [(a - b) % DATA_PRIME for a, b in zip(even, turned, strict=True)]


@cache
def _root() -> int:
    """A primitive 2N-th root of unity modulo ``q``."""
    candidates = (pow(base, (DATA_PRIME - 1) // (2 * _N), DATA_PRIME) for base in range(2, 1000))
    return next(root for root in candidates if pow(root, _N, DATA_PRIME) == DATA_PRIME - 1)
