import json
import os
import subprocess
import sys
import time

import psutil
import pytest

from sirius_helpers.errors import UserError
from sirius_helpers.files import lock
from sirius_helpers.files.lock import run_lock

HOLD = (
    "import sys, time; from pathlib import Path; from sirius_helpers.files.lock import run_lock\n"
    "with run_lock(Path(sys.argv[1])): print('held', flush=True); time.sleep(float(sys.argv[2]))"
)
ELSEWHERE = {"machine": "another", "host": "colab-1", "pid": 7, "started": 1.0, "since": "noon"}


@pytest.fixture
def other(tmp_path):
    """Another process, at work in the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path, "60"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def leave(folder, age=0.0, content=None, **said):
    """A lock that was written so many seconds ago."""
    path = folder / "run.left.lock"
    path.write_bytes(json.dumps(said).encode() if content is None else content)
    os.utime(path, (time.time() - age,) * 2)


def locks_in(folder):
    return list(folder.glob("run.*.lock"))


def said(folder):
    (path,) = locks_in(folder)
    return json.loads(path.read_text())


def test_a_second_process_is_refused_with_folder_holder_time_and_remedy(other, tmp_path):
    with pytest.raises(UserError) as refusal, run_lock(tmp_path):
        pytest.fail("went on")
    for part in (str(tmp_path), f"process {other.pid} on ", time.strftime("since %Y-"), "choose another RUN"):
        assert part in str(refusal.value)
    assert other.poll() is None


def test_a_killed_process_frees_the_folder_at_once(other, tmp_path):
    other.kill()
    other.wait()
    assert said(tmp_path)["pid"] == other.pid
    with run_lock(tmp_path):
        assert said(tmp_path)["pid"] == os.getpid()


def test_a_zombie_holds_nothing(other, tmp_path):
    other.kill()
    while psutil.Process(other.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    with run_lock(tmp_path):
        pass


def test_a_pid_that_went_to_another_process_holds_nothing(tmp_path, other):
    holder = said(tmp_path)
    locks_in(tmp_path)[0].unlink()
    leave(tmp_path, **holder, age=1e6)
    with pytest.raises(UserError, match="is in use"):  # it lives: a heartbeat that stopped does not matter
        run_lock(tmp_path).__enter__()
    leave(tmp_path, **holder | {"started": holder["started"] - 3600})
    with run_lock(tmp_path):
        pass


def test_a_lost_machine_frees_the_folder_after_two_minutes_without_a_sign_of_life(tmp_path):
    leave(tmp_path, **ELSEWHERE, age=100)
    with pytest.raises(UserError, match="process 7 on colab-1 is at work there since noon"):
        run_lock(tmp_path).__enter__()
    leave(tmp_path, **ELSEWHERE, age=130)
    with run_lock(tmp_path):
        pass


def test_the_heartbeat_is_renewed_while_the_work_lasts_and_the_lock_goes_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    with run_lock(tmp_path):
        (path,) = locks_in(tmp_path)
        first = path.stat().st_mtime_ns
        while path.stat().st_mtime_ns == first:
            time.sleep(0.02)
    time.sleep(0.1)
    assert not list(tmp_path.iterdir())


def test_the_same_process_may_ask_again_and_only_the_last_exit_frees(tmp_path):
    with run_lock(tmp_path):
        with run_lock(tmp_path):
            pass
        assert len(locks_in(tmp_path)) == 1
    assert not locks_in(tmp_path)


def test_two_kinds_of_work_do_not_keep_each_other_out(other, tmp_path):
    with run_lock(tmp_path, "notebook"):
        assert len(list(tmp_path.glob("*.lock"))) == 2


def test_an_error_or_an_interrupt_frees_the_folder(tmp_path):
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), run_lock(tmp_path):
            raise error
        assert not locks_in(tmp_path)


def test_a_process_that_lost_its_lock_does_not_go_on_and_does_not_take_it_back(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    with run_lock(tmp_path):
        locks_in(tmp_path)[0].unlink()
        leave(tmp_path, **ELSEWHERE)
        time.sleep(0.1)
        with pytest.raises(UserError, match="no longer this process's"), run_lock(tmp_path):
            pytest.fail("went on")
    assert said(tmp_path)["host"] == "colab-1"


@pytest.mark.parametrize("content", [b"", b'{"pid": 1', b"5", b"[]", b"{}", b"\xff\xfe"])
def test_a_lock_that_cannot_be_read_lasts_two_minutes(tmp_path, content):
    leave(tmp_path, content=content)
    with pytest.raises(UserError, match="another process is at work"):
        run_lock(tmp_path).__enter__()
    leave(tmp_path, content=content, age=130)
    with run_lock(tmp_path):
        pass


def test_of_many_that_find_an_abandoned_lock_one_gets_it(tmp_path):
    """All start at the same moment; whoever holds the lock writes its pid twice, a while apart."""
    leave(tmp_path, **ELSEWHERE, age=1e6)
    code = (
        "import os, sys, time; from pathlib import Path; from sirius_helpers.files.lock import run_lock\n"
        "from sirius_helpers.errors import UserError\n"
        "time.sleep(max(0, float(sys.argv[2]) - time.time()))\n"
        "try:\n"
        "    with run_lock(Path(sys.argv[1])):\n"
        "        for _ in range(2): print(os.getpid(), file=open(Path(sys.argv[1], 'log'), 'a')); time.sleep(0.3)\n"
        "except UserError: print('refused')"
    )
    command = [sys.executable, "-c", code, tmp_path, str(time.time() + 3)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate()[0] for process in processes]
    pids = (tmp_path / "log").read_text().split()
    assert len(pids) == 2 * (4 - said.count("refused\n")) >= 2
    assert pids[::2] == pids[1::2]  # never two at once
