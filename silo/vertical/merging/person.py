"""The person's side: their device merges what each silo gave it, and tells nobody.

This runs where the person is. It needs the federation's charter, to know whose signatures are on the parts,
and the key that was made here.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policies.charters.charter import Charter
from policies.files import read_limited, write_atomically
from privacy.devices import DeviceKey, DeviceKeyError
from privacy.errors import UsageError
from privacy.merging import merged_scores
from silo.vertical.merging.documents import (
    MAX_PART_BYTES,
    FeaturePart,
    LabelPart,
    MergePartError,
    MergeTrustError,
    open_part,
)

_KEY_MODE = 0o600


@dataclass(frozen=True)
class MergedItem:
    """One row of a merged list.

    Attributes:
        item_id: as in the catalogue.
        title: as in the catalogue.
        score: larger is better; comparable within one list only.
        rank: 1 for the first.
    """

    item_id: str
    title: str
    score: float
    rank: int


@dataclass(frozen=True)
class MergedList:
    """The best new items of the person whose device this is.

    Attributes:
        job: whose model.
        label: the label silo.
        merged: feature silos whose part is in the list.
        missing: feature silos of the job whose part is not.
        rows: by rank.
    """

    job: str
    label: str
    merged: tuple[str, ...]
    missing: tuple[str, ...]
    rows: tuple[MergedItem, ...]

    def to_json(self) -> dict[str, Any]:
        """What ``merge list`` writes as JSON."""
        partners = dict.fromkeys(self.merged, "merged") | dict.fromkeys(self.missing, "no part")
        return {
            "job": self.job,
            "label": self.label,
            "serving_mode": "user_side_merge",
            "partners": partners,
            "items": [asdict(row) for row in self.rows],
        }


def make_device_key(path: Path) -> DeviceKey:
    """Make this device's key; its file is readable by its owner alone.

    Raises:
        UsageError: there is a file already.
    """
    if path.exists():
        raise UsageError("there is a file already", where=str(path), remedy="name another one with --out")
    key = DeviceKey.generate()
    write_atomically(path, base64.b64encode(key.private_bytes()) + b"\n", mode=_KEY_MODE)
    return key


def load_device_key(path: Path) -> DeviceKey:
    """Read this device's key.

    Raises:
        DeviceKeyError: it is none.
    """
    try:
        return DeviceKey.from_bytes(base64.b64decode(read_limited(path).strip(), validate=True))
    except (binascii.Error, ValueError) as error:
        raise DeviceKeyError(
            "this is no device's key", where=str(path), remedy="name what `archipel merge key` wrote"
        ) from error


def read_part(path: Path) -> bytes:
    """Read a part's file.

    Raises:
        MergePartError: it cannot be one.
    """
    try:
        if path.stat().st_size > MAX_PART_BYTES:
            raise MergePartError("too large for a part", where=str(path), remedy="name a silo's part")
        return path.read_bytes()
    except OSError as error:
        raise MergePartError(
            "no part can be read there", where=str(path), remedy="name the file that the silo gave you"
        ) from error


def merge_list(parts: Sequence[bytes], key: DeviceKey, charter: Charter, k: int) -> MergedList:
    """Rank what the person has not had, by the scores that all parts give together.

    Args:
        parts: one of the label silo, and those of feature silos.
        key: of this device.
        charter: in force.
        k: length of the list, at least 1.

    Raises:
        UsageError: ``k`` below 1, not one label silo's part, none of a feature silo, or two of one.
        DeviceSealError: a part is for another device, or altered.
        MergeTrustError: a part is not signed by its silo, or of another ticket than the label silo's.
        MergePartError, MergeError: a part is damaged.
    """
    if k < 1:
        raise UsageError(f"a list of {k} items cannot be made", where="-k", remedy="ask for at least 1")
    label, features = _sorted(parts, key)
    _verify(label, features, charter, key)
    scores = label.own_scores()
    for silo, part in features.items():
        scores = scores + merged_scores(label.partners[silo].model(scores.size), part.content)
    scores[label.seen] = -np.inf
    best = [int(place) for place in np.argsort(-scores, kind="stable")[:k] if np.isfinite(scores[place])]
    rows = tuple(
        MergedItem(label.item_ids[place], label.titles[place], float(scores[place]), rank)
        for rank, place in enumerate(best, 1)
    )
    missing = tuple(silo for silo in label.partners if silo not in features)
    return MergedList(label.ticket.job, label.ticket.label, tuple(features), missing, rows)


def _sorted(parts: Sequence[bytes], key: DeviceKey) -> tuple[LabelPart, dict[str, FeaturePart]]:
    labels: list[LabelPart] = []
    features: dict[str, FeaturePart] = {}
    for part in (open_part(raw, key) for raw in parts):
        if isinstance(part, LabelPart):
            labels.append(part)
        elif features.setdefault(part.silo, part) is not part:
            raise UsageError(f"two parts of {part.silo}", where="PART", remedy="name one part of each silo")
    if len(labels) != 1 or not features:
        raise UsageError(
            f"{len(labels)} parts of a silo that makes the list and {len(features)} of others",
            where="PART",
            remedy="name the one part that began the list, and what other silos gave for it",
        )
    return labels[0], features


def _verify(label: LabelPart, features: dict[str, FeaturePart], charter: Charter, key: DeviceKey) -> None:
    """Accept that each part is its silo's, and all are of one ticket for this device."""
    for silo, part in ((label.ticket.label, label), *features.items()):
        member = charter.member(silo)
        if member is None:
            raise MergeTrustError(f"{silo} is no member", where="--charter", remedy="trust no such part")
        part.verify(silo, member.identity_key)
    if label.ticket.device != str(key.address):
        raise MergeTrustError("the list was begun for another device", remedy="begin it anew")
    for silo, part in features.items():
        if silo not in label.partners or part.ticket_sha256 != label.ticket.digest.hex():
            raise MergeTrustError(
                f"the part of {silo} is for another list than {label.ticket.label}'s",
                remedy="name parts of the same ticket",
            )
