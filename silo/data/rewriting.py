"""``archipel data clean``: a cleaned copy of a table, by rules that look at one person at a time.

What needs many people's rows to decide (dropping rare items, k-cores, outliers, merging accounts) is not
offered: one person more or less would then change other people's rows, and the noise of a plan covers the
change of one person's only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from policies.silo_policy import Dataset
from privacy.errors import UsageError
from silo.data.catalogue import Catalogue
from silo.data.cleaning import CleaningReport, clean_rows
from silo.data.inspecting import read_file
from silo.data.mapping import columns_line
from silo.data.sources import read_dataset, read_exclusions
from silo.outputs import new_file, refuse_existing

OUTPUT_FORMATS: Final = {".csv": "csv", ".parquet": "parquet"}
STATEMENT: Final = (
    "Every rule looked at one person's rows: a contribution of the new file costs what it did before."
)


@dataclass(frozen=True)
class Cleaned:
    """What was written.

    Attributes:
        path: the new file.
        report: what was left out of it.
        suggestion: lines for ``policy.yaml``.
    """

    path: Path
    report: CleaningReport
    suggestion: tuple[str, str]


def clean_table(
    source: Path | Dataset, directory: Path, out: Path, *, items: Catalogue | None, cap: int | None
) -> Cleaned:
    """Write a cleaned copy.

    Args:
        source: a file, or a dataset of the policy, whose opt-outs are left out.
        directory: the silo's.
        out: ``.csv`` or ``.parquet``; must not exist.
        items: rows of other items are left out; ``None`` keeps all.
        cap: the most recent rows of one person that stay; ``None`` keeps all.

    Raises:
        UsageError: a name of another kind. OutputExistsError: the name is taken.
        DataError: the source cannot be read.
    """
    if out.suffix not in OUTPUT_FORMATS:
        raise UsageError(
            f"no table is written as '{out.suffix}'",
            where="--out",
            remedy=f"end it with {' or '.join(OUTPUT_FORMATS)}",
        )
    refuse_existing(out)
    if isinstance(source, Dataset):
        rows = read_dataset(source, directory, None, strict=False)
        exclusions = read_exclusions(source, directory, strict=False)
    else:
        rows, exclusions = read_file(source), frozenset[str]()
    kept, report = clean_rows(
        rows, items, max_interactions_per_user=cap, exclude_users=exclusions, strict=False
    )
    filled = [name for name in kept.columns if kept[name].null_count() < kept.height]
    table = kept.select(filled).sort("user_id", "timestamp" if "timestamp" in filled else "item_id")
    with new_file(out) as file:
        if out.suffix == ".csv":
            table.write_csv(file)
        else:
            table.write_parquet(file)
    columns = columns_line({name: name for name in filled})
    return Cleaned(out, report, (f"source: {{{OUTPUT_FORMATS[out.suffix]}: {out}}}", columns))
