"""The disk, the power and the permissions of the machine a ledger lives on.

Whatever happens, a charge that was returned is there, one that was not is there once or not at all, and the
same charge asked for again is the same one.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from privacy.errors import ArchipelError, ExitCode
from privacy.ledger.chain import LogCorruptError, read_entries, verify_chain
from privacy.ledger.fold import Fold
from privacy.ledger.state import LedgerState
from silo.site import Site
from tests.contracts.audited_silo import NOW, make_audited_silo
from tests.contracts.ledger_tools import (
    CHEAP,
    Owner,
    commit_and_tell,
    commit_under_limits,
    in_processes,
    open_customers,
    open_ledger,
    reserve,
    use_without_permission,
)

PAGE = 4096
FRAME = PAGE + 24
WAL_HEADER = 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def reserved(path: Path, count: int = 10) -> Path:
    with open_customers(path, epsilon=100.0) as ledger:
        reserve(ledger, count=count, event=CHEAP)
    return path


def assert_sound(path: Path) -> LedgerState:
    assert list(verify_chain(path, Owner().verify)) == []
    fold, problems = Fold.of(read_entries(path))
    assert problems == ()
    with open_ledger(path) as ledger:
        assert ledger.state() == fold.state()
    return fold.state()


def charges(path: Path) -> int:
    return sum(count for _, count in assert_sound(path).accounts["customers"].committed)


class TestPowerLossInsideAWrite:
    @pytest.fixture
    def torn(self, path: Path, tmp_path: Path) -> tuple[Path, bytes, int]:
        """The database, the whole write-ahead log of two charges, and where in it the second begins."""
        reserved(path)
        wal = path.with_name("ledger.db-wal")
        with open_ledger(path) as ledger:
            ledger.commit("job-1", round=1, attempt=0, event=CHEAP)
            begin = wal.stat().st_size
            ledger.commit("job-1", round=1, attempt=1, event=CHEAP)
            shutil.copy(path, tmp_path / "copy.db")
            content = wal.read_bytes()
        return tmp_path / "copy.db", content, begin

    def cuts(self, begin: int, end: int) -> Iterator[int]:
        """Every edge of a frame and its neighbours, and places in between."""
        edges = range(begin, end + 1, FRAME)
        yield from sorted(
            {
                place
                for edge in edges
                for place in (edge - 1, edge, edge + 1, edge + 8, edge + 24, edge + 24 + PAGE // 2)
                if begin <= place <= end
            }
            | set(random.Random(7).sample(range(begin, end), 20))
        )

    @pytest.mark.parametrize(
        "tail", [b"", b"\0" * 700, bytes(range(256)) * 4], ids=["cut", "zeros", "garbage"]
    )
    def test_at_any_byte_the_charge_before_is_there_and_the_new_one_once(
        self, torn: tuple[Path, bytes, int], tail: bytes, tmp_path: Path
    ) -> None:
        database, wal, begin = torn
        path = tmp_path / "after" / "ledger.db"
        for cut in self.cuts(begin, len(wal)):
            shutil.rmtree(path.parent, ignore_errors=True)
            path.parent.mkdir()
            shutil.copy(database, path)
            path.with_name("ledger.db-wal").write_bytes(wal[:cut] + tail)
            with open_ledger(path) as ledger:
                found = sum(count for _, count in ledger.status("customers").committed)
                assert found == (2 if cut == len(wal) else 1), cut
                again = ledger.commit("job-1", round=1, attempt=1, event=CHEAP)
                assert again == ledger.commit("job-1", round=1, attempt=1, event=CHEAP)
            assert charges(path) == 2, cut

    def test_a_first_write_that_never_reached_the_disk_leaves_an_empty_ledger(self, path: Path) -> None:
        """The log of a ledger is linked into place whole, so there is no half of a first one."""
        with open_customers(path) as ledger:
            head = ledger.head()
            wal = path.with_name("ledger.db-wal").read_bytes()
            shutil.copy(path, path.with_name("copy.db"))
        for cut in (0, 1, WAL_HEADER - 1, WAL_HEADER, WAL_HEADER + 100, len(wal) - 1):
            copy = path.with_name(f"cut-{cut}.db")
            shutil.copy(path.with_name("copy.db"), copy)
            copy.with_name(copy.name + "-wal").write_bytes(wal[:cut])
            with open_ledger(copy) as ledger:
                assert ledger.head().seq == 0
                assert ledger.state().accounts == {}
        assert head.seq == 1


class TestKilled:
    def test_what_was_told_is_charged_and_at_most_one_more(self, path: Path) -> None:
        reserved(path, 100_000)
        told = 0
        context = multiprocessing.get_context("spawn")
        for delay in (0.05, 0.21):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=commit_and_tell, args=(path, sender), daemon=True)
            process.start()
            sender.close()
            receiver.poll(60)
            time.sleep(delay)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join(60)
            while receiver.poll():
                try:
                    told = max(told, receiver.recv() + 1)
                except EOFError:
                    break
            receiver.close()
            assert told <= charges(path) <= told + 1


class TestDiskFull:
    def test_at_any_byte_of_a_charge_the_state_stays_and_the_next_try_charges_once(self, path: Path) -> None:
        places, step = 120, 701
        reserved(path, places)
        ((failures, torn, committed),) = in_processes(commit_under_limits, [(path, places, step)])
        assert set(failures) == {"log_storage"}
        assert failures["log_storage"] > 20
        assert torn == 0
        assert committed == places
        assert charges(path) == places


class TestDamage:
    @pytest.fixture
    def whole(self, path: Path) -> tuple[bytes, LedgerState]:
        reserved(path, 40)
        with open_ledger(path) as ledger:
            for attempt in range(30):
                ledger.commit("job-1", round=1, attempt=attempt, event=CHEAP)
            state = ledger.state()
        return path.read_bytes(), state

    def tried(self, path: Path) -> LedgerState | str:
        """What an agent does at the next job, up to the charge: the state before it, or the error's code."""
        try:
            with open_ledger(path) as ledger:
                before = ledger.state()
                reserve(ledger, "job-2", event=CHEAP)
                ledger.commit("job-2", round=1, attempt=0, event=CHEAP)
        except ArchipelError as error:
            return error.code
        return before

    def test_a_file_that_was_cut_off_never_counts_less(
        self, path: Path, whole: tuple[bytes, LedgerState]
    ) -> None:
        content, state = whole
        refused = 0
        cuts = [1, 15, 16, 99, 100, 101, 512, *range(PAGE - 1, len(content), PAGE // 2 + 3)]
        for cut in cuts:
            path.write_bytes(content[:cut])
            found = self.tried(path)
            assert found in (state, "log_corrupt"), cut
            refused += found == "log_corrupt"
        assert refused > len(cuts) // 2

    def test_an_empty_file_never_counts_as_a_fresh_ledger(
        self, path: Path, whole: tuple[bytes, LedgerState]
    ) -> None:
        path.write_bytes(b"")
        with pytest.raises(LogCorruptError):
            open_ledger(path)

    @pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\x5a"])
    def test_a_page_of_rubbish_is_a_clear_error_or_was_of_no_account(
        self, path: Path, whole: tuple[bytes, LedgerState], fill: bytes
    ) -> None:
        content, state = whole
        refused = 0
        for begin in range(0, len(content), PAGE):
            path.write_bytes(content[:begin] + fill * PAGE + content[begin + PAGE :])
            found = self.tried(path)
            refused += found == "log_corrupt"
            assert found in (state, "log_corrupt") or _is_noticed(path)
        assert refused > 3

    def test_what_an_auditor_reads_of_a_damaged_page_is_no_silence(
        self, path: Path, whole: tuple[bytes, LedgerState]
    ) -> None:
        content, _ = whole
        for begin in range(0, len(content), PAGE):
            path.write_bytes(content[: begin + 8] + b"\x5a" * (PAGE - 8) + content[begin + PAGE :])
            assert _is_noticed(path) or list(read_entries(path)) == _entries(content, path)


def _entries(content: bytes, path: Path) -> list[object]:
    whole = path.with_name("whole.db")
    whole.write_bytes(content)
    return list(read_entries(whole))


def _is_noticed(path: Path) -> bool:
    """Whether the chain, or what its entries mean, shows that something is wrong."""
    try:
        chain = list(verify_chain(path, Owner().verify))
        fold, problems = Fold.of(read_entries(path))
        with open_ledger(path) as ledger:
            return bool(chain or problems) or ledger.state() != fold.state()
    except LogCorruptError:
        return True


class TestKeys:
    def test_a_missing_key_is_a_clear_error_and_the_ledger_stays(self, tmp_path: Path) -> None:
        silo = make_audited_silo(tmp_path)
        silo.federation.install_charter()
        before = silo.ledger_path.read_bytes()
        Site(silo.directory, clock=lambda: NOW).close()
        (silo.directory / "keys" / "identity.pem").unlink()
        with pytest.raises(ArchipelError) as caught:
            Site(silo.directory, clock=lambda: NOW)
        assert caught.value.exit_code == ExitCode.DATA
        assert caught.value.remedy
        assert silo.ledger_path.read_bytes() == before
        assert silo.codes() == set()


class TestPermissions:
    @pytest.fixture
    def shared(self) -> Iterator[Path]:
        """A directory that everybody may enter and read, unlike those of pytest."""
        directory = Path(tempfile.mkdtemp(prefix="archipel-read-only-"))
        yield directory
        directory.chmod(0o700)
        shutil.rmtree(directory)

    def test_a_read_only_disk_is_an_error_of_the_host_and_nothing_is_lost(self, shared: Path) -> None:
        path = reserved(shared / "ledger.db")
        path.chmod(0o444)
        shared.chmod(0o555)
        (answer,) = in_processes(use_without_permission, [(path,)])
        assert answer == ("log_storage", int(ExitCode.HOST))
        shared.chmod(0o700)
        path.chmod(0o600)
        assert charges(path) == 0

    def test_a_file_of_somebody_else_is_an_error_of_the_host(self, shared: Path) -> None:
        path = reserved(shared / "ledger.db")
        path.chmod(0o000)
        shared.chmod(0o555)
        (answer,) = in_processes(use_without_permission, [(path,)])
        assert answer == ("log_storage", int(ExitCode.HOST))
