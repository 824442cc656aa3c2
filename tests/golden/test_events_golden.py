"""Bytes of privacy records as first written; a change here breaks every ledger and signed policy."""

from __future__ import annotations

import hashlib

import pytest
import rfc8785
from pydantic import BaseModel

from privacy.budget import Budget, RenyiFilter, ZcdpFilter
from privacy.events import GaussianEvent, PoissonSampledGaussianEvent, PureEvent, SelfComposedEvent

VECTORS: list[tuple[BaseModel, bytes, str]] = [
    (
        GaussianEvent(noise_multiplier=1.15807, sampler="discrete-gaussian/v1"),
        b'{"clamp_probability":0,"kind":"gaussian","noise_multiplier":1.15807,"sampler":"discrete-gaussian/v1"}',
        "34014bc0b39f4b554389bfbd1fa9bf4521cfcaf2dd82b9863c5fb3a82350d6db",
    ),
    (
        PoissonSampledGaussianEvent(
            noise_multiplier=0.75,
            sample_rate=0.01,
            max_silos_per_user=3,
            sampler="discrete-gaussian/v1",
            clamp_probability=2.5e-43,
        ),
        b'{"clamp_probability":2.5e-43,"kind":"poisson_sampled_gaussian","max_silos_per_user":3,'
        b'"noise_multiplier":0.75,"sample_rate":0.01,"sampler":"discrete-gaussian/v1"}',
        "967777b0c7e316f2f3d977a22cc254106cad7897cd6dd22e575b92cb3250c9d0",
    ),
    (
        PureEvent(epsilon=0.1),
        b'{"epsilon":0.1,"kind":"pure"}',
        "df5413874275e00ceb0b5c6ff6db25ae966948be90e4072a175a03f0ff05d201",
    ),
    (
        SelfComposedEvent(
            event=PoissonSampledGaussianEvent(
                noise_multiplier=1.5,
                sample_rate=0.125,
                max_silos_per_user=2,
                sampler="discrete-gaussian/v1",
                clamp_probability=1e-50,
            ),
            count=16,
        ),
        b'{"count":16,"event":{"clamp_probability":1e-50,"kind":"poisson_sampled_gaussian",'
        b'"max_silos_per_user":2,"noise_multiplier":1.5,"sample_rate":0.125,'
        b'"sampler":"discrete-gaussian/v1"},"kind":"self_composed"}',
        "0ed719739bf98c43d33fb6020545ec8fe2d81738a581c727f55fcd8a1195a3da",
    ),
    (ZcdpFilter(), b'{"kind":"zcdp"}', "d3ae42f40c1adccd485fd6e2286d0c42a2ceb3eb4995995bf3e6f1d22d82d4c6"),
    (
        Budget(epsilon=8.0, delta=1e-6, filter=RenyiFilter(orders=(2.0, 4.0, 64.0))),
        b'{"delta":0.000001,"epsilon":8,"filter":{"kind":"renyi","orders":[2,4,64]}}',
        "f3538e95e8ca9250ed48cb1578e43f9da7d6149a4d1b2227c36ddbf545772f4a",
    ),
]


@pytest.mark.parametrize(("record", "expected", "digest"), VECTORS, ids=lambda value: type(value).__name__)
def test_canonical_bytes_of_a_record_never_change(record: BaseModel, expected: bytes, digest: str) -> None:
    found = rfc8785.dumps(record.model_dump(mode="json", exclude_unset=True))
    assert found == expected
    assert hashlib.sha256(found).hexdigest() == digest
