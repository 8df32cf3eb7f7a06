import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from sirius_helpers.errors import UserError, command
from sirius_helpers.files import runs
from sirius_helpers.files.runs import MADE_BY, Run, pinned
from sirius_helpers.settings import PROJECT, ModelSpec


def test_a_second_labeler_that_cannot_be_had_is_no_condition_where_it_only_gives_opinions(settings, capsys):
    there = pinned(replace(settings, second_labeler=ModelSpec("nobody/nothing")))
    assert there.second_labeler is None and "rare labels get no second opinion" in capsys.readouterr().out
    with pytest.raises(UserError, match="nobody/nothing"):
        pinned(replace(settings, second_labeler=ModelSpec("nobody/nothing"), second_weight=0.5))


def test_a_missing_file_names_the_stage_that_makes_it(tmp_path):
    for name, stage in MADE_BY.items():
        with pytest.raises(UserError, match=f"run the stage '{stage}' first"):
            Run(tmp_path).need(name)


def test_a_stage_is_finished_only_with_its_fingerprint_and_its_files_unchanged(tmp_path):
    run = Run(tmp_path)
    assert not run.is_finished("split", "f1")
    with run.stage("split", "f1"):
        run.path("split.csv").write_text("a")
    assert run.is_finished("split", "f1")
    assert not run.is_finished("split", "f2")
    run.path("split.csv").write_text("")
    assert not run.is_finished("split", "f1")
    run.path("split.csv").unlink()
    assert not run.is_finished("split", "f1")


def test_a_file_is_handed_on_only_as_its_stage_left_it(tmp_path):
    run = Run(tmp_path)
    run.path("split.csv").write_text("by hand")
    assert run.need("split.csv").exists()  # nothing is known of it
    with pytest.raises(ZeroDivisionError), run.stage("split", "f1"):
        raise ZeroDivisionError
    with pytest.raises(UserError, match="split.csv is not what the stage 'split' writes .* Run the stage 'split'"):
        run.need("split.csv")
    with run.stage("split", "f1"):
        run.path("split.csv").write_text("whole")
    assert run.need("split.csv").exists()
    with pytest.raises(ZeroDivisionError), run.stage("split", "f2"):
        run.path("split.csv").write_text("half")
        raise ZeroDivisionError
    with pytest.raises(UserError, match="is not what the stage"):
        run.need("split.csv")


def make(run, stage, **files):
    """A finished stage that wrote these texts."""
    names = {name: name.replace("_", ".") for name in files}
    with run.stage(stage, "f"):
        for name, text in files.items():
            run.path(names[name]).write_text(text)


@pytest.fixture
def chain(tmp_path):
    """A run of files that were made from each other."""
    run = Run(tmp_path)
    make(run, "label", labels_jsonl="a")
    make(run, "review", labels_csv="a")
    make(run, "augment", synthetic_jsonl="a")
    make(run, "split", split_csv="a")
    make(run, "train", adapter="a", history_csv="a")
    make(run, "evaluate", errors_csv="a")
    return run


def test_a_file_made_from_an_older_one_names_both_and_the_stage_to_run_again(chain):
    make(chain, "review", labels_csv="b")
    with pytest.raises(UserError, match="split.csv was made from an older labels.csv; run 'split' again"):
        chain.need("split.csv")
    with pytest.raises(UserError, match="split.csv was made from an older labels.csv; run 'split', then 'train' again"):
        chain.need("adapter")
    make(chain, "split", split_csv="a")
    assert chain.need("adapter").exists()  # split as before


def test_a_correction_is_noticed_wherever_work_goes_on_and_results_may_still_be_looked_at(chain):
    chain.path("corrections.csv").write_text("a")
    for name, again in (("labels.csv", "'review'"), ("split.csv", "'split'"), ("adapter", "'split', then 'train'")):
        with pytest.raises(UserError, match=f"labels.csv was made from an older corrections.csv; run {again} again"):
            chain.need(name)
    assert chain.need("errors.csv").exists() and chain.need("synthetic.jsonl").exists()
    chain.path("corrections.csv").unlink()
    assert chain.need("adapter").exists()


def test_a_result_is_not_shown_as_that_of_a_newer_adapter(chain):
    make(chain, "train", adapter="b", history_csv="a")
    with pytest.raises(UserError, match="errors.csv was made from an older adapter; run 'evaluate' again"):
        chain.need("errors.csv")


def test_a_file_that_is_gone_makes_nothing_older_and_a_run_that_recorded_no_reading_works(chain):
    chain.path("labels.jsonl").unlink()
    assert chain.need("adapter").exists()
    stages = {name: {k: v for k, v in entry.items() if k != "read"} for name, entry in chain.memory["stages"].items()}
    chain.remember(stages=stages)
    chain.path("corrections.csv").write_text("a")
    assert chain.need("adapter").exists()


@pytest.mark.parametrize("content", [b"", b'{"stages": {"la', b"5", b"{}", b'{"stages": 5}', b"\xff\xfe"])
def test_a_damaged_run_json_is_set_aside_and_says_so_once(tmp_path, capsys, content):
    run = Run(tmp_path)
    run.path("run.json").write_bytes(content)
    assert run.memory == {"stages": {}} and not run.is_finished("split", "f1")
    assert capsys.readouterr().out.count("run.json was damaged") == 1
    assert run.path("run.json.damaged").read_bytes() == content


def fill_a_disk(folder):
    with open("/dev/full", "wb", buffering=0) as file:
        file.write(b"x")


def write_where_one_may_not(folder):
    folder.chmod(0o500)
    root = os.geteuid() == 0
    if root:  # who may write anywhere
        os.seteuid(65534)
    try:
        (folder / "new").write_bytes(b"")
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)


def open_too_many_files(folder):
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 8, old[1]))
        while True:
            files.append(open(os.devnull))  # noqa: SIM115
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)
        for file in files:
            file.close()


def ask_nobody(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    socket.create_connection(address)


CAUSES = {  # what happens inside a stage: what is said
    fill_a_disk: "could not be written: No space left on device .* MiB free.* Free some space, then run",
    write_where_one_may_not: "new could not be read or written: Permission denied. Give yourself the right to",
    lambda folder: (
        shutil.rmtree(folder) or (folder / "new").touch()
    ): "new could .*No such file .*Bring the folder back",
    open_too_many_files: "^the work stopped: Too many open files. Restart the kernel.* or allow more",
    ask_nobody: "^the work stopped: Connection refused. Check the network and the server",
    lambda _: bytearray(2**62): "^the work stopped: Cannot allocate memory. Close what else needs memory, or lower",
    lambda _: torch.empty(2**60): "^the work stopped: Cannot allocate memory",
}


@pytest.mark.parametrize("happens", CAUSES)
def test_what_the_system_refuses_is_told_by_its_cause_and_the_stage_is_not_recorded(tmp_path, happens):
    run = Run(tmp_path / "run")
    with pytest.raises(UserError, match=CAUSES[happens]), run.stage("train", "f1"):
        happens(run.folder)
    assert not run.is_finished("train", "f1")


@pytest.fixture
def interruptible():
    """A process in the background of a shell ignores the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_says_that_the_stage_can_go_on(tmp_path, capsys, interruptible):
    with pytest.raises(KeyboardInterrupt), Run(tmp_path).stage("train", "f1"):
        signal.raise_signal(signal.SIGINT)
    assert capsys.readouterr().out == "\ntrain: interrupted. Run it again: it goes on after what was finished.\n"


def test_an_interrupted_command_ends_in_one_line(capsys, interruptible):
    assert command(lambda _: signal.raise_signal(signal.SIGINT))([]) == 130
    assert capsys.readouterr().err == "Interrupted. Run the same command again: what was finished is kept.\n"


def test_no_stage_and_no_new_settings_beside_a_process_at_work(settings):
    program = "from sirius_helpers.files.lock import run_lock\nwith run_lock(sys.argv[1]): print(flush=True); input()"
    command = [sys.executable, "-c", f"import sys; {program}", settings.folder]
    other = subprocess.Popen(command, stdin=-1, stdout=-1, env=os.environ | {"PYTHONPATH": str(PROJECT)})
    other.stdout.readline()
    run = Run(settings.folder)
    for work in (run.stage("split", "f1").__enter__, lambda: run.remember(seed=1), lambda: runs.begin(settings)):
        with pytest.raises(UserError, match=f"is in use: process {other.pid}"):
            work()
    assert not run.is_finished("split", "f1") and not run.path("run.json").exists()  # reading stays allowed
    other.communicate(b"\n")
    runs.begin(settings)


def test_a_stage_that_fails_is_not_recorded(tmp_path):
    run = Run(tmp_path)
    with pytest.raises(ZeroDivisionError), run.stage("split", "f1"):
        raise ZeroDivisionError
    assert not run.is_finished("split", "f1")


def test_a_changed_fingerprint_says_that_the_stage_is_done_again(tmp_path, capsys):
    run = Run(tmp_path)
    with run.stage("train", "f1"):
        pass
    assert capsys.readouterr().out == ""
    with run.stage("train", "f2"):
        pass
    assert "train: its input, settings or model changed" in capsys.readouterr().out


def test_a_file_changed_by_hand_says_that_the_stage_is_done_again(tmp_path, capsys):
    run = Run(tmp_path)
    for text in ("a", "by hand"):
        make(run, "review", labels_csv="a")
        run.path("labels.csv").write_text(text)
    assert capsys.readouterr().out == "review: a file that it wrote is gone or was changed, so it is done again.\n"


def test_a_folders_digest_sees_names_and_content(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "a").write_text("1")
    before = runs.digest(folder)
    (folder / "a").write_text("2")
    changed = runs.digest(folder)
    (folder / "a").rename(folder / "b")
    assert len({before, changed, runs.digest(folder), runs.digest(tmp_path / "none")}) == 4


def test_beginning_a_run_records_profile_models_versions_and_seed(settings):
    run = runs.begin(settings)
    memory = run.memory
    assert memory["profile"] == "cpu" and memory["profile_reason"] == "asked for" and memory["seed"] == 42
    assert set(memory["models"]) == {"labeler", "writer", "classifier"}
    assert memory["versions"]["torch"].startswith("2.")
    with run.stage("split", "f"):
        pass
    assert "split" in runs.begin(settings).memory["stages"]


def test_a_stage_records_the_peak_memory_of_its_process_so_far(tmp_path):
    run, block = Run(tmp_path), np.ones(2**25)  # a quarter of a GiB
    with run.stage("split", "f"):
        del block
    assert 0.25 < run.memory["stages"]["split"]["peak_memory"] < 64
