"""What makes hundreds of simulations affordable: pure functions answer from memory.

Each function remembered here gives the same answer for the same arguments by its own contract, and takes no
part in what a schedule can change: parsing and verifying bytes, canonical encodings, building an encryption
context, reading a table that nobody alters, a test of the machine's own arithmetic. Signatures that did not
verify are not remembered.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, TypeVar

import pytest
import rfc8785

import policies.documents
import policies.files
import privacy.accounting
import silo.rows
import silo.site
from policies.decisions.decision import reauthorize
from policies.signing import PublicKey
from policies.silo_policy import SiloPolicy
from privacy.dpsgd import PerUserGradients
from privacy.encryption import summation
from privacy.encryption.keyholder import KeyHolder
from silo.data.catalogue import Catalogue

R = TypeVar("R")

REMEMBERED = 5_000


class Shortcuts:
    """Answers that simulations share; given only while ``taken``, so that no other test hears one."""

    def __init__(self) -> None:
        self._detours: list[tuple[object, str, Callable[..., Any]]] = [
            (silo.site, "reauthorize", _by_identity(reauthorize)),
            (KeyHolder, "from_secret", lru_cache(64)(KeyHolder.from_secret)),
            (Catalogue, "load", _by_file(Catalogue.load)),
        ]
        self._remember(rfc8785, "dumps", key=repr)
        self._remember(policies.documents, "_compose", key=_all)
        self._remember(SiloPolicy, "model_validate_json", key=_all)
        self._remember(PublicKey, "verify", key=_all)
        self._remember(policies.files, "trust_charter", key=_on_its_day)
        self._remember(policies.files, "trust_policy", key=_on_its_day)
        self._remember(privacy.accounting, "epsilon_pld", key=lambda events, delta: (tuple(events), delta))
        self._remember(summation, "load_own_context", key=_all)
        self._remember(summation, "keyless_context_bytes", key=lambda: 0)
        self._remember(policies.files, "dump_yaml", key=lambda model, header: (repr(model), header))
        self._remember(silo.rows, "load_rows", key=_of_its_sources)
        self._remember(PerUserGradients, "start_up_self_test", key=lambda self, *batch: self.num_values)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Answer from memory while the block runs."""
        with pytest.MonkeyPatch.context() as patch, _rare_collections():
            for owner, name, detour in self._detours:
                patch.setattr(owner, name, detour)
            yield

    def _remember(self, owner: object, name: str, *, key: Callable[..., Hashable]) -> None:
        self._detours.append((owner, name, _remembering(getattr(owner, name), key)))


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Collect garbage when a simulation has ended, and never look at modules, disks and keys again."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def _remembering(function: Callable[..., R], key: Callable[..., Hashable]) -> Callable[..., R]:
    answers: dict[Hashable, R] = {}

    @wraps(function)
    def remembered(*args: Any, **kwargs: Any) -> R:
        of = key(*args, **kwargs)
        if of not in answers:
            if len(answers) > REMEMBERED:
                answers.clear()
            answers[of] = function(*args, **kwargs)
        return answers[of]

    return remembered


def _all(*args: Hashable, **kwargs: Hashable) -> Hashable:
    return args, tuple(kwargs.items())


def _on_its_day(*args: object, **kwargs: object) -> Hashable:
    """Trust depends on the time by the date alone."""
    values = [value.date() if isinstance(value, datetime) else value for value in (*args, *kwargs.values())]
    return tuple(value if isinstance(value, bytes | str) else repr(value) for value in values)


def _of_its_sources(directory: Path, plan: Any, dataset: Any, **kwargs: object) -> Hashable:
    stamp = tuple(entry[1:] for entry in silo.rows.source_stamp(directory, dataset))
    return repr(plan), repr(dataset), stamp, repr(kwargs)


def _by_identity(function: Callable[..., R]) -> Callable[..., R]:
    """For values that are frozen and have no hash; they are kept, so that no other takes their identity."""
    answers: dict[object, tuple[Any, Any, R]] = {}

    def remembered(one: Any, other: Any, third: Hashable) -> R:
        of = id(one), id(other), third
        if of not in answers:
            if len(answers) > REMEMBERED:
                answers.clear()
            answers[of] = one, other, function(one, other, third)
        return answers[of][2]

    return remembered


def _by_file(load: Callable[[Path, str], R]) -> Callable[[Path, str], R]:
    answers: dict[object, R] = {}

    def remembered(path: Path, sha256: str) -> R:
        status = path.stat()
        of = status.st_ino, status.st_mtime_ns, status.st_size, sha256
        if of not in answers:
            answers[of] = load(path, sha256)
        return answers[of]

    return remembered
