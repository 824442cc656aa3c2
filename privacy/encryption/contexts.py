"""Contexts, built from the constants of ``parameters`` and never from a peer's bytes."""

from __future__ import annotations

from functools import cache
from typing import Any

import tenseal
from tenseal import sealapi

from privacy.encryption.parameters import COEFFICIENT_MODULUS_BITS, TENSEAL_VERSION
from privacy.errors import HostError
from privacy.packing import PLAIN_MODULUS, SLOTS_PER_FRAME


class TensealInstallationError(HostError):
    """This machine has another TenSEAL than the one this code was written for."""

    code = "tenseal_installation"


def seal_parameters() -> sealapi.EncryptionParameters:
    """Return fresh SEAL parameters: BFV, degree 4096, primes of 60 and 49 bits, plain modulus ``t``."""
    parameters = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.BFV)
    parameters.set_poly_modulus_degree(SLOTS_PER_FRAME)
    parameters.set_coeff_modulus(sealapi.CoeffModulus.Create(SLOTS_PER_FRAME, list(COEFFICIENT_MODULUS_BITS)))
    parameters.set_plain_modulus(PLAIN_MODULUS)
    return parameters


def seal_context(parameters: sealapi.EncryptionParameters) -> sealapi.SEALContext:
    """Return the SEAL context of these parameters, refused by SEAL below 128 bits of security."""
    return sealapi.SEALContext(parameters, True, sealapi.SEC_LEVEL_TYPE.TC128)


def keyless_context_bytes() -> bytes:
    """Return this TenSEAL's own serialised context of the constants, without any key.

    Raises:
        TensealInstallationError: the installed TenSEAL is not :data:`TENSEAL_VERSION`.
    """
    if tenseal.__version__ != TENSEAL_VERSION:
        raise TensealInstallationError(
            f"TenSEAL {tenseal.__version__} is installed, {TENSEAL_VERSION} is needed",
            remedy=f"pip install tenseal=={TENSEAL_VERSION}",
        )
    return _serialised_constants()


@cache
def _serialised_constants() -> bytes:
    # Once in a process: TenSEAL makes keys along with every context, which nobody here uses.
    context = tenseal.context(
        tenseal.SCHEME_TYPE.BFV,
        poly_modulus_degree=SLOTS_PER_FRAME,
        plain_modulus=PLAIN_MODULUS,
        coeff_mod_bit_sizes=list(COEFFICIENT_MODULUS_BITS),
        encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
        n_threads=1,
    )
    return bytes(context.serialize(False, False, False, False))


def load_own_context(serialised: bytes) -> Any:
    """Return the TenSEAL context of bytes that *this process* has put together from the constants."""
    return tenseal.context_from(serialised, n_threads=1)
