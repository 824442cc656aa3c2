"""What a vertical demo may be asked, and what it says of what partners brought."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import app
from privacy.errors import UsageError
from silo.demo.options import HorizontalOptions, Model, VerticalOptions, given_of, refuse_options_of
from silo.demo.vertical.report import verdict
from silo.demo.vertical.settings import VerticalSettings

USUAL = VerticalSettings(
    data=None, format=None, min_rating=None, epsilon=4.0, delta=1e-5, seed=0, num_seeds=1, out=Path("run")
)


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"label_items": 0}, "--label-items"),
        ({"label_items": 101}, "--label-items"),
        ({"people": 199}, "--people"),
        ({"people": 100_001}, "--people"),
        ({"people": 400, "data": Path("somewhere")}, "--people"),
        ({"epsilon": 0.0}, "--epsilon"),
        ({"num_seeds": 0}, "--seeds"),
    ],
)
def test_what_cannot_be_is_refused_by_its_option(changes: dict[str, Any], option: str) -> None:
    with pytest.raises(UsageError) as refused:
        replace(USUAL, **changes).check()
    assert refused.value.where == option
    assert refused.value.remedy


def test_options_of_the_other_partition_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="only a horizontal demo has --silos, --model, --record"):
        refuse_options_of("horizontal", HorizontalOptions(silos=3, model=Model.AUTOENCODER, record=True))
    with pytest.raises(UsageError, match="only a vertical demo has --people"):
        refuse_options_of("vertical", VerticalOptions(people=300))
    refuse_options_of("horizontal", HorizontalOptions())
    assert given_of(HorizontalOptions(model=Model.AUTOENCODER)) == {"model": "autoencoder", "record": False}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--partition", "vertical", "--rounds", "5"], "--rounds"),
        (["--label-items", "3"], "--label-items"),
    ],
)
def test_the_command_refuses_them_before_anything_is_made(
    words: list[str], named: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = CliRunner().invoke(app, ["demo", *words, "--out", str(out)])
    assert done.exit_code == 2
    assert named in done.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("private", "plain", "error", "said"),
    [
        (
            14.2,
            29.9,
            1.0,
            "The partners bring shop ndcg@20 +14.2 % (standard error 1.0) at epsilon 4, +29.9 %",
        ),
        (14.2, 29.9, 8.0, "Under this noise the partners bring shop nothing"),
        (0.4, 29.9, 0.1, "Under this noise the partners bring shop nothing"),
        (1.4, 3.0, 2.0, "The partners bring shop nothing on this data: ndcg@20 +1.4 %"),
        (-0.1, 0.3, 0.01, "The partners bring shop nothing on this data: ndcg@20 -0.1 %"),
    ],
)
@pytest.mark.parametrize("popularity", [0.1, 0.9])
def test_partners_that_bring_nothing_are_called_so(
    private: float, plain: float, error: float, said: str, popularity: float
) -> None:
    lifts = {"federated_private": private, "federated_plain": plain}
    metrics = {"federated_private": 0.5, "popularity": popularity}
    found = verdict(
        {
            "lift_percent": {name: {"mean": lift, "error": error} for name, lift in lifts.items()},
            "metrics": {name: {"ndcg@20": value} for name, value in metrics.items()},
            "privacy": {"target_epsilon": 4.0},
        }
    )
    assert said in found
    assert ("Popularity ranks as well" in found) == (popularity > 0.5)
