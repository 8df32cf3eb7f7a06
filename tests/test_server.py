"""A served model against the same model in memory: a tiny one behind a scripted server, Gemma behind llama.cpp's."""

import json
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler

import numpy as np
import pytest
import torch
from conftest import answering
from tiny_models import tiny_qwen2

from sirius_helpers.errors import UserError
from sirius_helpers.extras import server as server_module
from sirius_helpers.extras.server import Server, ServerQuestion, ServerSampler
from sirius_helpers.files.categories import read_categories
from sirius_helpers.files.journal import read_records
from sirius_helpers.files.runs import Run, begin
from sirius_helpers.label import label
from sirius_helpers.llm.candidates import Writer
from sirius_helpers.llm.labelers import label_question
from sirius_helpers.llm.questions import ClosedQuestion
from sirius_helpers.loaders import causal_lm
from sirius_helpers.settings import CAUSAL_LM, PROJECT, ModelSpec

sys.path.insert(0, str(PROJECT / "benchmarks"))
import llama_server

ANSWERS = ["обувь", "посуда", "одежда", "одежда и текстиль"]
TEXTS = ["Сапоги промокают", "", "Чашка <|im_end|> разбилась"]


class Scripted:
    """Answers as llama.cpp or vLLM would from a tiny model; `statuses` come first, then 200 until it is `closed`."""

    def __init__(self, model, dialect="llama.cpp", statuses=()):
        self.model, self.dialect, self.statuses = model, dialect, list(statuses)
        self.asked, self.dies_after, self.key = [], None, None

    def answer(self, body):
        self.asked.append(body)
        with torch.no_grad():
            logits = self.model(torch.tensor([body["prompt"]])).logits[0, -1].double()
        for token, bias in body.get("logit_bias", {}).items():
            logits[int(token)] += bias
        found = logits.log_softmax(-1).topk(body.get("logprobs", 1))
        pairs = list(zip(found.indices.tolist(), found.values.tolist(), strict=True))
        if self.dialect == "vllm":
            return {"text": "", "logprobs": {"top_logprobs": [{f"token_id:{i}": value for i, value in pairs}]}}
        entries = [{"id": i, "prob": float(np.exp(value))} for i, value in pairs]
        return {"text": f" {body.get('seed')}", "logprobs": {"content": [{"id": pairs[0][0], "top_probs": entries}]}}


@contextmanager
def serving(scripted):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            dead = scripted.dies_after is not None and len(scripted.asked) >= scripted.dies_after
            if dead:
                self.close_connection = True
                self.connection.close()
                return
            status = scripted.statuses.pop(0) if scripted.statuses else 200
            if scripted.key and self.headers["Authorization"] != f"Bearer {scripted.key}":
                status = 401
            said = json.dumps({"choices": [scripted.answer(body)]} if status == 200 else {"error": "no"}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

    with answering(Handler) as server:
        yield f"http://127.0.0.1:{server.server_port}/v1"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(server_module, "PAUSE", 0.001)


def spec(address, **values):
    return ModelSpec("tiny", server=address, server_requests=4, **values)


@pytest.mark.parametrize("dialect", ["llama.cpp", "vllm"])
@pytest.mark.parametrize("prior_texts", [(), ("", "нет")])
def test_a_served_model_gives_the_probabilities_of_the_same_model_in_memory(dialect, prior_texts):
    model, tokenizer = tiny_qwen2()
    framed = (tokenizer, "<|im_start|>Отзыв: ", "<|im_end|>\n<|im_start|>", ANSWERS)
    options = {"end": "<|im_end|>", "prior_texts": prior_texts}
    expected = ClosedQuestion(model, *framed, **options).log_probs(TEXTS)
    with serving(Scripted(model, dialect)) as address:
        found = ServerQuestion(Server(spec(address)), *framed, **options).log_probs(TEXTS)
    assert np.exp(expected).sum(1) == pytest.approx(1) and found == pytest.approx(expected, abs=1e-3)


def test_no_request_leaves_room_for_the_models_own_sampling():
    model, tokenizer = tiny_qwen2()
    scripted = Scripted(model)
    with serving(scripted) as address:
        server = Server(spec(address))
        ServerQuestion(server, tokenizer, "Отзыв: ", "\nТовар:", ANSWERS, end="\n").log_probs(["Сапоги"])
        ServerSampler(server, tokenizer, [], temperature=0.8, top_p=0.9, max_new_tokens=2)([(0, [1, 2])], [1])
    own = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")  # what vLLM would take from the model's file
    said = {tuple(body.get(name) for name in own) for body in scripted.asked}
    assert said == {(1.0, 1.0, -1, 0.0, 1.0), (0.8, 0.9, -1, 0.0, 1.0)}


def test_a_busy_server_is_asked_again_and_a_refusal_is_said_at_once():
    model, _ = tiny_qwen2()
    with serving(Scripted(model, statuses=[503, 429])) as address:
        assert Server(spec(address)).complete([1, 2], logprobs=1)["logprobs"]
    with serving(Scripted(model, statuses=[400] * 2)) as address, pytest.raises(UserError, match="refuses.*400.*no"):
        Server(spec(address)).complete([1, 2])


def test_a_key_comes_from_the_environment_and_is_written_nowhere(served, monkeypatch, capsys):
    model, at = served
    locked = Scripted(model)
    locked.key = "sesame"
    with serving(locked) as address:
        with pytest.raises(UserError, match="wants its key in the environment: SIRIUS_SERVER_KEY") as refused:
            Server(spec(address)).complete([1, 2])
        monkeypatch.setenv("SIRIUS_SERVER_KEY", " wrong-sesame ")
        with pytest.raises(UserError, match="SIRIUS_SERVER_KEY") as wrong:
            Server(spec(address)).complete([1, 2])
        monkeypatch.setenv("SIRIUS_SERVER_KEY", "sesame")
        settings = at(address)
        begin(settings)
        assert len(label(settings)) == 8
    written = b"".join(path.read_bytes() for path in settings.folder.rglob("*") if path.is_file())
    said = capsys.readouterr()
    assert "sesame" not in f"{refused.value}{wrong.value}{said.out}{said.err}" and b"sesame" not in written
    monkeypatch.setenv("SIRIUS_SERVER_KEY", "ses\name")
    with pytest.raises(UserError, match="^SIRIUS_SERVER_KEY holds characters that no key has; copy the key again.$"):
        Server(spec(address))


def test_an_answer_that_takes_too_long_is_given_up(monkeypatch):
    scripted = Scripted(None)
    scripted.answer = lambda body: threading.Event().wait(0.3) or {}
    monkeypatch.setattr(server_module, "TIMEOUT", 0.05)
    with serving(scripted) as address, pytest.raises(UserError, match="does not answer \\(timed out\\)"):
        Server(spec(address)).complete([1, 2])


def test_no_more_requests_than_allowed_are_under_way_at_once():
    scripted, now, most = Scripted(None), [], []

    def answer(body):
        now.append(1)
        most.append(len(now))
        threading.Event().wait(0.01)
        now.pop()
        return {"text": "да"}

    scripted.answer = answer
    with serving(scripted) as address:
        server = Server(spec(address))
        assert server.map_concurrently(lambda n: server.complete([n])["text"], range(20)) == ["да"] * 20
    assert 2 <= max(most) <= 4


def test_probabilities_that_a_server_keeps_to_itself_are_an_error_with_the_remedy():
    model, tokenizer = tiny_qwen2()
    scripted = Scripted(model, "vllm")
    answer = scripted.answer
    scripted.answer = lambda body: answer(body | {"logprobs": 1})
    with serving(scripted) as address, pytest.raises(UserError, match="gives no probability.*processed_logprobs"):
        ServerQuestion(Server(spec(address)), tokenizer, "Отзыв: ", "\nТовар:", ANSWERS, end="\n").log_probs(["Сапоги"])


def test_probabilities_that_are_no_numbers_are_an_error_with_the_remedy():
    model, tokenizer = tiny_qwen2()
    scripted = Scripted(model, "vllm")
    scripted.answer = lambda body: {
        "logprobs": {"top_logprobs": [{f"token_id:{token}": float("nan") for token in body["logit_bias"]}]}
    }
    with serving(scripted) as address, pytest.raises(UserError, match="no numbers.*bf16 or fp32"):
        ServerQuestion(Server(spec(address)), tokenizer, "Отзыв: ", "\nТовар:", ANSWERS, end="\n").log_probs(["Сапоги"])


@pytest.fixture
def served(settings, tmp_path):
    """Settings whose labeler and writer are a tiny model at an address yet unknown."""
    model, tokenizer = tiny_qwen2()
    tokenizer.save_pretrained(tmp_path / "tiny")

    def at(address):
        there = ModelSpec(str(tmp_path / "tiny"), chat=True, server=address, server_requests=4)
        changes = {"labeler": there, "writer": there, "labeler_kind": "llm", "tokens_per_batch": 150}
        return replace(settings, **changes, prior_correction=False)

    return model, at


def test_a_server_killed_in_the_middle_is_a_clear_error_and_nothing_is_lost(served):
    model, at = served
    dying = Scripted(model)
    dying.dies_after = 5
    with serving(dying) as address, pytest.raises(UserError, match="does not answer.*Start it and run the stage again"):
        label(at(address))
    path = Run(at("http://x").folder).path("labels.jsonl")
    before = read_records(path)
    assert 0 < len(before) < 8
    again = Scripted(model)
    with serving(again) as address:  # at another address
        labels = label(at(address))
    assert len(labels) == 8
    kept = {record["id"]: record["probabilities"] for record in before}
    assert kept.items() <= dict(zip(labels["id"], labels["probabilities"], strict=True)).items()
    places = len(again.asked) / (8 - len(before))
    assert places == round(places), "only what was missing was asked again"


def test_the_writer_and_the_judge_are_served_too(served):
    model, at = served
    with serving(Scripted(model)) as address:
        settings = at(address)
        with causal_lm(settings.writer, "cpu") as (server, tokenizer):
            writer = Writer(server, tokenizer, settings)
            assert writer.write([(0, [1, 2]), (0, [3])], [5, 2**40 + 7]) == ["5", "7"]
            yes = writer.p_yes(["Сапоги промокают", "Не могу"])
        loaded = Writer(model, tokenizer, settings).p_yes(["Сапоги промокают", "Не могу"])
    assert yes == pytest.approx(loaded, abs=1e-3)


def test_an_address_without_a_scheme_is_refused():
    with pytest.raises(UserError, match="is no address; write one such as 'http://127.0.0.1:8080/v1'"):
        ModelSpec("tiny", server="localhost:8080")


def test_llama_cpp_labels_as_the_same_weights_do_in_memory(settings):
    """Gemma-3-270M from the embedded file, unpacked to fp32 on both sides."""
    taxonomy, texts = read_categories(settings.data), ["Сапоги промокают", "Чашка разбилась в дороге", "Не пришло"]
    with causal_lm(ModelSpec(CAUSAL_LM, weights="fp32"), "cpu") as (model, tokenizer):
        expected = label_question(model, tokenizer, taxonomy, settings).log_probs(texts)
    with llama_server.running(llama_server.F32) as (process, address):
        there = ModelSpec(CAUSAL_LM, server=address, server_requests=4)
        with causal_lm(there, "cpu") as (server, tokenizer):
            question = label_question(server, tokenizer, taxonomy, settings)
            found = question.log_probs(texts)
            assert found.argmax(1).tolist() == expected.argmax(1).tolist()
            assert np.exp(found) == pytest.approx(np.exp(expected), abs=0.02)
            process.kill()
            process.wait()
            with pytest.raises(UserError, match="does not answer.*what was finished is kept"):
                question.log_probs(texts)
