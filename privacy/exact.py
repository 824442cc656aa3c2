"""Exact comparison of a uniform real number with ``exp(-x)``, refined only as far as the answer needs.

The vectorised sampler decides all but about one in 2^39 comparisons in floating point, with a margin far
above its rounding error; the rest come here, where rational brackets of the alternating series decide
without any error.
"""

from __future__ import annotations

from fractions import Fraction

from privacy.randomness import WORD_BITS, WordSource

_FIRST_TERMS = 12


class LazyUniform:
    """A uniform real in [0, 1) whose binary digits are drawn when a comparison asks for them.

    Args:
        word: its first 64 bits, already drawn.
        source: where further bits come from.
    """

    def __init__(self, word: int, source: WordSource) -> None:
        self._prefix = word
        self._num_bits = WORD_BITS
        self._source = source

    def is_below_exp(self, exponent: Fraction) -> bool:
        """Whether the number is below ``exp(-exponent)``, ``exponent >= 0``; ends with probability 1."""
        terms = _FIRST_TERMS
        while True:
            lower, upper = exp_bracket(exponent, terms)
            scale = 1 << self._num_bits
            if self._prefix + 1 <= lower * scale:
                return True
            if self._prefix >= upper * scale:
                return False
            if (upper - lower) * scale < 1:
                self._prefix = self._prefix << WORD_BITS | self._source.word()
                self._num_bits += WORD_BITS
            else:
                terms *= 2


def exp_bracket(exponent: Fraction, terms: int) -> tuple[Fraction, Fraction]:
    """Rational bounds ``lower <= exp(-exponent) <= upper``; they close in as ``terms`` grows.

    Args:
        exponent: at least 0. Its integer part is a power of the bracket of ``exp(-1)``.
        terms: even number of terms of the series.
    """
    whole, rest = divmod(exponent, 1)
    lower_unit, upper_unit = _unit_bracket(Fraction(1), terms)
    lower_rest, upper_rest = _unit_bracket(rest, terms)
    return lower_unit**whole * lower_rest, upper_unit**whole * upper_rest


def _unit_bracket(exponent: Fraction, terms: int) -> tuple[Fraction, Fraction]:
    # Terms of the series fall for exponents in [0, 1], so consecutive partial sums enclose the limit.
    total, term = Fraction(0), Fraction(1)
    for index in range(terms):
        total += term
        term *= -exponent / (index + 1)
    return total, total + term
