"""What comes from elsewhere (models, adapters, label files, records) is data: loaded or refused, and never run."""

import ast
import json
import pickle
from dataclasses import replace

import nbformat
import pandas as pd
import pytest
import torch
from tiny_models import saved, tiny_qwen2, tiny_roberta

from sirius_helpers.encoder.classifier import WEIGHTS, Classifier, new_model, save
from sirius_helpers.errors import UserError
from sirius_helpers.files.journal import Journal
from sirius_helpers.files.reviews import read_reviews, write_csv
from sirius_helpers.label import label
from sirius_helpers.loaders import causal_lm, encoder, load_tokenizer
from sirius_helpers.settings import PROJECT, ModelSpec

FORBIDDEN = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "eval", "exec", "compile", "__import__"}
FORBIDDEN |= {"torch.load", "torch.hub", "np.load", "numpy.load", "pd.read_pickle", "yaml.load", "os.system"}


def offences(code):
    """Names in Python code that read pickles or run text as code, and `trust_remote_code` that is not False."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Name | ast.Attribute):
            names = [ast.unparse(node)]
        elif isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
            names = [] if ast.unparse(node.value) == "False" else ["trust_remote_code"]
        else:
            names = []
        yield from (name for name in names if {name, name.split(".")[0]} & (FORBIDDEN | {"trust_remote_code"}))


BAD = ["import pickle", "from joblib import load", "torch.load(f)", "eval(x)", "pd.read_pickle(f)", "f(g=exec)"]


@pytest.mark.parametrize("code", [*BAD, "AutoModel.from_pretrained(x, trust_remote_code=True)"])
def test_the_search_finds_what_it_is_for(code):
    assert list(offences(code))


def test_nothing_in_package_and_notebook_reads_a_pickle_or_runs_text_as_code():
    sources = {str(path): path.read_text(encoding="utf-8") for path in (PROJECT / "sirius_helpers").rglob("*.py")}
    notebook = nbformat.read(PROJECT / "notebooks" / "sirius_pipeline.ipynb", as_version=4)
    sources["notebook"] = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert len(sources) > 30
    assert {name: found for name, code in sources.items() if (found := list(offences(code)))} == {}


def test_the_trace_shows_when_a_pickle_is_loaded(tmp_path, poison):
    pickle.loads(pickle.dumps(poison))
    (tmp_path / "was run").unlink()  # it was there


@pytest.mark.parametrize(("loader", "make"), [(encoder, tiny_roberta), (causal_lm, tiny_qwen2)])
@pytest.mark.parametrize("harm", ["a poisoned pickle", "a whole pickle", "a torn file"])
def test_weights_that_are_no_whole_safetensors_are_refused(tmp_path, poison, loader, make, harm):
    model, tokenizer = make()
    spec = ModelSpec(saved(tmp_path / "model", (model, tokenizer)))
    weights, pickled = tmp_path / "model" / "model.safetensors", tmp_path / "model" / "pytorch_model.bin"
    if harm == "a torn file":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        weights.unlink()
        torch.save(model.state_dict() if harm == "a whole pickle" else poison, pickled)
    with pytest.raises(UserError, match="could not be loaded.*safetensors"), loader(spec, "cpu"):
        pytest.fail("was loaded")


def test_code_that_comes_with_a_model_is_not_run_and_nobody_is_asked_whether_it_may(tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody was asked"))
    spec = ModelSpec(saved(tmp_path / "model", tiny_qwen2()))
    code = f"import pathlib\npathlib.Path({str(tmp_path / 'was run')!r}).touch()\n"
    (tmp_path / "model" / "evil.py").write_text(code, encoding="utf-8")
    names = {name: f"evil.{name}" for name in ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoTokenizer")}
    for file, model_type in (("config.json", "evil"), ("tokenizer_config.json", None)):
        path = tmp_path / "model" / file
        changed = json.loads(path.read_text()) | {"auto_map": names, "tokenizer_class": "Evil"}
        path.write_text(json.dumps(changed | ({"model_type": model_type} if model_type else {})))
    for load in (causal_lm, encoder):
        with pytest.raises(UserError, match="could not be loaded.*no code of its own"), load(spec, "cpu"):
            pytest.fail("was loaded")
    with pytest.raises(UserError, match="could not be loaded"):
        load_tokenizer(spec)
    assert not (tmp_path / "was run").exists()


@pytest.fixture
def adapter(settings, roberta):
    """A folder that `save` wrote."""
    settings = replace(settings, classifier=ModelSpec(str(roberta)))
    folder = settings.folder / "adapter"
    tokenizer = load_tokenizer(settings.classifier)
    save(new_model(settings, 2), tokenizer, folder, settings, ["обувь", "посуда"], temperature=1.0)
    return folder


@pytest.mark.parametrize("harm", ["a pickle beside none", "a pickle under its name", "torn"])
def test_an_adapter_that_is_no_whole_safetensors_is_refused(adapter, poison, harm):
    weights = adapter / WEIGHTS
    content = weights.read_bytes()
    weights.unlink()
    if harm == "a pickle beside none":
        torch.save(poison, adapter / "adapter_model.bin")
    else:
        weights.write_bytes(pickle.dumps(poison) if harm == "a pickle under its name" else content[:-50])
    with pytest.raises(UserError, match=f"{WEIGHTS} is (missing|damaged).*run the stage 'train'"):
        Classifier.load(adapter, "cpu")


def test_a_pickle_is_no_label_file(settings, tmp_path, poison):
    (tmp_path / "labels.csv").write_bytes(pickle.dumps(poison))
    with pytest.raises(UserError, match="labels.csv"):
        label(replace(settings, labels=tmp_path / "labels.csv"))


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "a/b", "", "..", None, "x" * 5_000, "a\x00b"])
def test_what_a_record_calls_its_fingerprint_leads_to_no_other_folder(tmp_path, name):
    folder = tmp_path / "checkpoints" / "run"
    folder.mkdir(parents=True)
    (folder / "labels.jsonl").write_text(json.dumps({"fingerprint": name, "id": "a"}) + "\n", encoding="utf-8")
    journal = Journal(folder / "labels.jsonl", "mine")
    assert journal.records == [] and journal.set_aside.resolve().parent == folder.resolve()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [journal.set_aside]


@pytest.mark.parametrize("line", ["[1, 2]", "5", '"text"', "null", "[" * 100_000])
def test_a_line_that_is_no_record_is_named(tmp_path, line):
    (tmp_path / "labels.jsonl").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="labels.jsonl, line 1 is not a JSON record"):
        Journal(tmp_path / "labels.jsonl", "mine")


FORMULAS = [
    '=HYPERLINK("http://x.example";"нажми")',
    "+7 900 000-00-00",
    "-5 баллов",
    "@SUM(A1)",
    "\t=1+1",
    "=cmd|' /C'!A0",
]


def test_formulas_go_in_and_out_to_the_letter(tmp_path):
    """Changed ones would no longer be the texts that corrections and predictions are for."""
    write_csv(tmp_path / "train.csv", pd.DataFrame({"text": FORMULAS}))
    assert read_reviews(tmp_path / "train.csv")["text"].tolist() == FORMULAS
