"""Somebody hands an auditor a file that is no honest bundle."""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from privacy.errors import ExitCode
from silo.audit import bundle
from silo.audit.bundle import ENTRIES, MANIFEST, BundleError, BundleVersionError
from silo.audit.commands import audit_app
from silo.audit.evidence import open_evidence
from silo.audit.export import export_bundle
from silo.audit.verify import verify
from tests.contracts.audited_silo import JOB, NOW, AuditedSilo, make_audited_silo

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> AuditedSilo:
    return make_audited_silo(tmp_path_factory.mktemp("original"))


@pytest.fixture(scope="module")
def honest(audited: AuditedSilo) -> Path:
    return export_bundle(audited.directory, audited.root / "honest.zip", now=NOW).path


def remade(
    honest: Path, target: Path, change: Callable[[Files, dict[str, Any]], None], *, seal: bool = True
) -> Path:
    """The bundle with other files; ``seal`` writes a manifest that fits them."""
    with zipfile.ZipFile(honest) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if name != MANIFEST}
        manifest = json.loads(archive.read(MANIFEST))
    change(files, manifest)
    if seal:
        manifest["files"] = {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "num_bytes": len(content)}
            for name, content in files.items()
        }
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr(MANIFEST, json.dumps(manifest))
    return target


def refuse(path: Path, match: str) -> None:
    with pytest.raises(BundleError, match=match), open_evidence(path):
        raise AssertionError("it was opened")


def test_an_honest_bundle_made_again_is_accepted(honest: Path, tmp_path: Path) -> None:
    with open_evidence(remade(honest, tmp_path / "b.zip", lambda files, manifest: None)) as evidence:
        assert evidence.silo() == "shop-a"


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "jobs/../../policy.yaml",
        "jobs/../plan.yaml",
        "C:\\policy.yaml",
        "policies/../1.yaml",
        "policies/0.yaml",
        f"jobs/{JOB}/model.safetensors",
        "keys/identity.pem",
        "ledger.db",
        "policy.yaml/",
        "POLICY.YAML",
        "policy.yaml\n",
    ],
)
def test_a_name_that_points_elsewhere_or_is_unknown(honest: Path, tmp_path: Path, name: str) -> None:
    refuse(remade(honest, tmp_path / "b.zip", lambda files, _: files.update({name: b"x"})), "which no bundle")


def test_a_file_twice(honest: Path, tmp_path: Path) -> None:
    path = remade(honest, tmp_path / "b.zip", lambda files, manifest: None)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("policy.yaml", b"another")
    refuse(path, "twice")


def test_a_file_that_the_manifest_does_not_name(honest: Path, tmp_path: Path) -> None:
    def add(files: Files, _: dict[str, Any]) -> None:
        files["policies/9.yaml"] = b"x"

    refuse(remade(honest, tmp_path / "b.zip", add, seal=False), "not those of its manifest")


def test_a_file_that_is_missing(honest: Path, tmp_path: Path) -> None:
    def drop(files: Files, _: dict[str, Any]) -> None:
        del files["policy.yaml"]

    refuse(remade(honest, tmp_path / "b.zip", drop, seal=False), "not those of its manifest")


def test_no_entries_at_all(honest: Path, tmp_path: Path) -> None:
    refuse(remade(honest, tmp_path / "b.zip", lambda files, _: files.pop(ENTRIES) and None), "manifest")


def test_a_file_that_was_changed_on_the_way(honest: Path, tmp_path: Path) -> None:
    def change(files: Files, _: dict[str, Any]) -> None:
        files["policy.yaml"] = files["policy.yaml"].replace(b"8.0", b"9.0")

    refuse(remade(honest, tmp_path / "b.zip", change, seal=False), "not what the manifest says")


def test_a_small_file_that_grows_without_end(honest: Path, tmp_path: Path) -> None:
    path = remade(
        honest, tmp_path / "b.zip", lambda files, _: files.update({"policies/2.yaml": b"\0" * (64 << 20)})
    )
    assert path.stat().st_size < 100_000
    refuse(path, "too large")


def test_a_file_that_is_longer_than_it_says(honest: Path, tmp_path: Path) -> None:
    """The list of files promises 10 bytes; the compressed bytes would be many more."""
    path = remade(
        honest, tmp_path / "b.zip", lambda files, _: files.update({"policies/2.yaml": b"\0" * 900_000})
    )
    raw = bytearray(path.read_bytes())
    real = struct.pack("<I", 900_000)
    for start in range(len(raw) - 4):
        if raw[start : start + 4] == real:
            raw[start : start + 4] = struct.pack("<I", 10)
    path.write_bytes(raw)
    refuse(path, "damaged|not what the manifest says")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_way_of_packing_that_no_bundle_uses(honest: Path, tmp_path: Path, method: int) -> None:
    path = remade(honest, tmp_path / "b.zip", lambda files, manifest: None)
    with zipfile.ZipFile(path, "a", method) as archive:
        archive.writestr("policies/2.yaml", b"x")
    refuse(path, "packed in a way")


def test_a_list_of_files_in_no_alphabet(honest: Path, tmp_path: Path) -> None:
    path = remade(honest, tmp_path / "b.zip", lambda files, _: files.update({"policies/2é.yaml": b"x"}))
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xe9\xe9"))
    refuse(path, "damaged")


def test_a_manifest_that_promises_more_than_there_is(honest: Path, tmp_path: Path) -> None:
    def promise(_: Files, manifest: dict[str, Any]) -> None:
        manifest["files"]["policy.yaml"]["num_bytes"] += 1

    refuse(remade(honest, tmp_path / "b.zip", promise, seal=False), "not what the manifest says")


def test_more_files_than_a_bundle_has_are_refused_before_they_are_listed(
    honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "b.zip"
    path.write_bytes(honest.read_bytes())
    raw = bytearray(path.read_bytes())
    raw[-14:-10] = struct.pack("<HH", 65_500, 65_500)
    path.write_bytes(raw)
    monkeypatch.setattr(bundle.zipfile, "ZipFile", None)
    refuse(path, "more than 65000 files")


def test_a_64_bit_list_of_files_is_refused_before_it_is_read(
    honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = honest.read_bytes()
    path = tmp_path / "b.zip"
    path.write_bytes(raw[:-22] + b"PK\x06\x07" + b"\0" * 16 + raw[-22:])
    monkeypatch.setattr(bundle.zipfile, "ZipFile", None)
    refuse(path, "64-bit")


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all" * 100, b"PK\x05\x06" + b"\0" * 18])
def test_a_file_that_is_no_bundle(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b.zip"
    path.write_bytes(content)
    refuse(path, "not a bundle|no manifest")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_bundle_that_was_cut_off(honest: Path, tmp_path: Path, share: float) -> None:
    raw = honest.read_bytes()
    path = tmp_path / "b.zip"
    path.write_bytes(raw[: int(len(raw) * share)])
    refuse(path, "its end is missing")


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(honest: Path, tmp_path: Path) -> None:
    raw = honest.read_bytes()
    path = tmp_path / "b.zip"
    with open_evidence(honest) as evidence:
        wanted = {name: evidence.read(name) for name in evidence.names()}
    for place in range(0, len(raw), 7):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 0x10]) + raw[place + 1 :])
        try:
            with open_evidence(path) as evidence, evidence.open_ledger() as ledger:
                assert {name: evidence.read(name) for name in evidence.names()} == wanted
                assert len(list(ledger.entries())) == 5
        except BundleError:
            continue


def test_a_bundle_from_a_newer_version(honest: Path, tmp_path: Path) -> None:
    def age(_: Files, manifest: dict[str, Any]) -> None:
        manifest["schema_version"] = 3
        manifest["something_new"] = True

    path = remade(honest, tmp_path / "b.zip", age)
    with pytest.raises(BundleVersionError, match="newer version"), open_evidence(path):
        raise AssertionError("it was opened")
    result = CliRunner().invoke(audit_app, ["budget", str(path)])
    assert result.exit_code == ExitCode.DATA
    assert "error[bundle_version]" in result.stderr


@pytest.mark.parametrize("text", [b"[1, 2]", b"{", b"[" * 100_000, b'{"schema_version": 1}', b'"x"'])
def test_a_manifest_that_is_none(honest: Path, tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MANIFEST, text)
        archive.writestr(ENTRIES, b"")
    refuse(path, "is not one")


@pytest.mark.parametrize(
    "line",
    [b"{}", b"[]", b"nonsense", b"[" * 100_000, b'{"seq": "1"}', b"x" * (bundle.MAX_LINE_BYTES + 10)],
    ids=lambda line: str(line[:12]),
)
def test_a_line_that_is_no_entry(honest: Path, tmp_path: Path, line: bytes) -> None:
    def add(files: Files, _: dict[str, Any]) -> None:
        files[ENTRIES] += line + b"\n"

    path = remade(honest, tmp_path / "b.zip", add)
    with open_evidence(path) as evidence, evidence.open_ledger() as ledger:
        rows = ledger.rows()
        assert len([next(rows) for _ in range(5)]) == 5
        with pytest.raises(BundleError, match="is no entry"):
            next(rows)


def test_entries_that_were_changed_and_sealed_again_are_found_by_their_signatures(
    audited: AuditedSilo, honest: Path, tmp_path: Path
) -> None:
    def change(files: Files, _: dict[str, Any]) -> None:
        files[ENTRIES] = files[ENTRIES].replace(b"shop-b", b"shop-c", 1)

    path = remade(honest, tmp_path / "b.zip", change)
    codes = {item.code for item in verify(path, audited.charter_path, now=NOW).findings}
    assert "entry_altered" in codes
