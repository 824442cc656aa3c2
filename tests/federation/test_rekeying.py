"""Another TLS key: it waits beside the present one, and comes into place with the amendment that pins it."""

from __future__ import annotations

import shutil
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from federation.identity import Party
from federation.rekeying import rekey
from policies.administration import name_administrators
from policies.charters.administration import adopt_charter, amend_charter, sign_charter
from policies.charters.charter import Charter
from policies.files import load_card, load_yaml, save_signatures
from policies.signing import DetachedSignatures, PrivateKey, ThresholdError
from policies.trust import WrongSignerError
from privacy.errors import TrustError
from tests.contracts.federation_directories import SILOS, Federation, make_federation

NOW = datetime.now(UTC)


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    made = make_federation(tmp_path)
    made.install_charter()
    return made


def directory(federation: Federation, name: str = "shop-a") -> Path:
    return federation.parties[name].directory


def amendment(federation: Federation, tmp_path: Path, *signers: str) -> Path:
    draft = tmp_path / "draft" / "charter.yaml"
    amend_charter(
        directory(federation, "shop-b"), draft, NOW, members=[directory(federation) / "card-next.json"]
    )
    payload = load_yaml(draft, Charter).signed_bytes()
    signatures = DetachedSignatures.over(payload)
    for name in signers:
        signatures = signatures.signed_by(federation.parties[name].identity, payload)
    save_signatures(draft, signatures)
    return draft


def test_the_present_key_serves_until_the_amendment(federation: Federation, tmp_path: Path) -> None:
    before = Party.load(directory(federation))
    card = rekey(directory(federation))
    assert Party.load(directory(federation)).tls == before.tls
    assert card.certificate_sha256 != before.card.certificate_sha256
    assert (card.identity_key, card.administrators) == (before.card.identity_key, before.card.administrators)
    draft = amendment(federation, tmp_path, *SILOS)
    adopt_charter(directory(federation), draft, NOW)
    after = Party.load(directory(federation))
    assert after.tls.certificate_sha256 == card.certificate_sha256
    assert after.card == load_card(directory(federation) / "card.json") == card
    assert not list(directory(federation).rglob("*next*"))


def test_the_next_key_is_for_its_owner_only(federation: Federation) -> None:
    rekey(directory(federation))
    path = directory(federation) / "keys" / "tls-next.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"PRIVATE" not in (directory(federation) / "card-next.json").read_bytes()


def test_another_amendment_leaves_it_waiting(federation: Federation, tmp_path: Path) -> None:
    before = Party.load(directory(federation)).tls
    rekey(directory(federation))
    draft = tmp_path / "other" / "charter.yaml"
    amend_charter(directory(federation, "shop-b"), draft, NOW, threshold=2)
    for name in SILOS:
        sign_charter(directory(federation, name), draft, NOW)
    adopt_charter(directory(federation), draft, NOW)
    assert Party.load(directory(federation)).tls == before
    assert (directory(federation) / "card-next.json").exists()


def test_the_members_cannot_give_a_silo_another_key_without_it(
    federation: Federation, tmp_path: Path
) -> None:
    rekey(directory(federation))
    draft = amendment(federation, tmp_path, "shop-b", "shop-c")
    with pytest.raises(ThresholdError):
        adopt_charter(directory(federation), draft, NOW)


def test_a_silo_signs_only_what_one_of_its_own_cards_says(federation: Federation, tmp_path: Path) -> None:
    rekey(directory(federation))
    draft = amendment(federation, tmp_path)
    sign_charter(directory(federation), draft, NOW)
    (directory(federation) / "card-next.json").unlink()
    with pytest.raises(WrongSignerError, match="as its card says"):
        sign_charter(directory(federation), draft, NOW)


def test_the_card_of_another_party_is_never_taken(federation: Federation, tmp_path: Path) -> None:
    """A card-next.json that was swapped: the charter pins shop-b's certificate for shop-b, not for shop-a."""
    rekey(directory(federation, "shop-b"))
    shutil.copy(directory(federation, "shop-b") / "card-next.json", directory(federation) / "card-next.json")
    adopt_charter(directory(federation), directory(federation, "hub") / "charter.yaml", NOW)
    assert Party.load(directory(federation)).name == "shop-a"


@pytest.mark.parametrize("stopped_after", ["charter", "key", "card"])
def test_power_loss_while_the_key_is_put_into_place(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_after: str
) -> None:
    """Whatever was done before the power went: joining once more ends with key, card and charter that fit."""
    card = rekey(directory(federation))
    draft = amendment(federation, tmp_path, *SILOS)

    def die(*_: object, **__: object) -> None:
        raise OSError(5, "the power went")

    target = {
        "charter": ("policies.charters.administration._take_next_key", die),
        "key": ("policies.charters.administration.save_card", die),
        "card": ("pathlib.Path.unlink", die),
    }[stopped_after]
    with monkeypatch.context() as patch:
        patch.setattr(*target)
        with pytest.raises(OSError, match="the power went"):
            adopt_charter(directory(federation), draft, NOW)
    Party.load(directory(federation))
    adopt_charter(directory(federation), draft, NOW)
    party = Party.load(directory(federation))
    assert party.tls.certificate_sha256 == card.certificate_sha256
    assert load_card(directory(federation) / "card.json") == card
    assert not list(directory(federation).rglob("*next*"))


def test_a_foreign_key_beside_the_card_is_no_party(federation: Federation) -> None:
    rekey(directory(federation))
    shutil.copy(
        directory(federation, "shop-b") / "keys" / "tls.pem", directory(federation) / "keys" / "tls.pem"
    )
    with pytest.raises(TrustError, match="another TLS certificate"):
        Party.load(directory(federation))


def test_administrators_named_after_the_rekey_come_with_a_fresh_card(federation: Federation) -> None:
    """The next card is made anew by asking again; the key stays the same."""
    first = rekey(directory(federation))
    fresh = PrivateKey.generate().public_key
    name_administrators(directory(federation), [str(fresh)], 1)
    again = rekey(directory(federation))
    assert again.certificate_sha256 == first.certificate_sha256
    assert again.administrators is not None
    assert again.administrators.keys == (fresh,)
