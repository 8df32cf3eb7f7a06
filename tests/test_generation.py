import ast
import re
from collections import Counter

import pytest
import torch
from tiny_models import tiny_gemma3, tiny_qwen2
from transformers import GenerationConfig, TemperatureLogitsWarper, TopPLogitsWarper

from sirius_helpers.errors import UserError
from sirius_helpers.llm import sampler as generation
from sirius_helpers.llm.judge import judge_question, p_yes
from sirius_helpers.llm.sampler import Sampler, SeededTopP
from sirius_helpers.loaders import causal_lm
from sirius_helpers.models.text_tokens import PromptTokens
from sirius_helpers.settings import ModelSpec, settings_for


@pytest.fixture(scope="module")
def qwen():
    model, tokenizer = tiny_qwen2()
    tokenizer.padding_side = "left"
    return model, tokenizer


def sampler(qwen, **changes):
    return Sampler(*qwen, **({"temperature": 0.8, "top_p": 0.9, "max_new_tokens": 12} | changes))


def prompts_of(tokenizer, *texts):
    """Prompts that share nothing."""
    return [(0, tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]


def test_a_row_depends_on_its_own_seed_and_not_on_its_neighbours(qwen):
    prompts = prompts_of(qwen[1], "Отзыв: да", "Отзыв: сапоги малы", "нет")
    together = sampler(qwen)(prompts, [1, 2, 3])
    alone = [sampler(qwen)([prompt], [seed])[0] for prompt, seed in zip(prompts, [1, 2, 3], strict=True)]
    assert together == alone
    assert sampler(qwen)(prompts[:1], [9])[0] != together[0]


@pytest.mark.parametrize("likeliest", [1, 50, 80])
def test_a_neighbour_whose_next_token_is_open_changes_nothing(qwen, monkeypatch, likeliest):
    """In some rows the tokens that are looked at first hold the nucleus, in others all are needed."""
    monkeypatch.setattr(generation, "LIKELIEST", likeliest)
    prompts = prompts_of(qwen[1], "Отзыв: да", "Отзыв: сапоги малы", "нет", "Тарелка", "5 из 5")
    together = sampler(qwen)(prompts, range(5))
    assert together == [sampler(qwen)([prompt], [seed])[0] for seed, prompt in enumerate(prompts)]


REVIEWS = ["да", "сапоги малы, пришлось вернуть", "Отзыв: нет"]

# What a model's generation_config.json may bring; Qwen2.5's and so Vikhr's have the first three.
OF_ITS_OWN = [
    {"repetition_penalty": 1.3},
    {"do_sample": True, "temperature": 0.1, "top_p": 0.1, "top_k": 1},
    {"max_new_tokens": 2, "max_length": 3},
    {"min_new_tokens": 30},
    {"min_length": 60},
    {"no_repeat_ngram_size": 1},
    {"encoder_no_repeat_ngram_size": 1},
    {"encoder_repetition_penalty": 3.0},
    {"exponential_decay_length_penalty": (1, 5.0)},
    {"suppress_tokens": list(range(3, 300))},
    {"begin_suppress_tokens": list(range(3, 300))},
    {"bad_words_ids": [[n] for n in range(3, 300)]},
    {"sequence_bias": [[[n], -20.0] for n in range(3, 300)]},
    {"forced_bos_token_id": 5},
    {"forced_eos_token_id": 2},
    {"num_beams": 2, "num_return_sequences": 2},
    {"guidance_scale": 3.0},
    {"penalty_alpha": 0.6, "top_k": 4},
    {"max_time": 1e-9},
    {"stop_strings": ["о", "е"]},
    {"prompt_lookup_num_tokens": 3},
    {"cache_implementation": "static"},
    {"return_dict_in_generate": True},
    {"use_cache": False},
]


@pytest.fixture(scope="module")
def without_any(qwen):
    return sampler(qwen)(prompts_of(qwen[1], *REVIEWS), [1, 2, 3])


@pytest.mark.parametrize("own", OF_ITS_OWN, ids=lambda own: next(iter(own)))
def test_nothing_of_the_models_own_sampling_is_in_force(own, without_any):
    model, tokenizer = tiny_qwen2()
    tokenizer.padding_side = "left"
    model.generation_config = GenerationConfig(eos_token_id=2, **own)
    assert sampler((model, tokenizer))(prompts_of(tokenizer, *REVIEWS), [1, 2, 3]) == without_any


def test_sampling_that_an_old_model_has_in_its_config_is_not_in_force_either(tmp_path, without_any):
    model, tokenizer = tiny_qwen2()
    model.save_pretrained(tmp_path), tokenizer.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    config = (tmp_path / "config.json").read_text().rstrip("}\n ")
    (tmp_path / "config.json").write_text(config + ', "repetition_penalty": 1.5, "min_length": 60}')
    with causal_lm(ModelSpec(str(tmp_path)), "cpu") as loaded:
        assert sampler(loaded)(prompts_of(tokenizer, *REVIEWS), [1, 2, 3]) == without_any


def test_the_end_tokens_of_the_models_own_file_stay_in_force_for_every_sampler(without_any):
    model, tokenizer = tiny_qwen2()
    tokenizer.padding_side = "left"
    model.generation_config = GenerationConfig(eos_token_id=list(range(100, 200)))
    for stop in ("о", None):
        ours = sampler((model, tokenizer), stop=stop)
        assert {2, *range(100, 200)} <= set(ours.end_ids)
    texts = ours(prompts_of(tokenizer, *REVIEWS), [1, 2, 3])
    assert all(len(text) < len(whole) for text, whole in zip(texts, without_any, strict=True))


def overflowing(folder):
    """A chat model in fp16 whose activations overflow, as Qwen2's can on a T4."""
    model, tokenizer = tiny_qwen2()
    model.model.layers[0].mlp.down_proj.weight.data *= 3e4
    model.save_pretrained(folder), tokenizer.save_pretrained(folder)
    return ModelSpec(str(folder), weights="fp16", chat=True)


def write(loaded, settings):
    return sampler(loaded)(prompts_of(loaded[1], "Сапоги промокают", "да"), [1, 2])


def judge(loaded, settings):
    return p_yes(judge_question(*loaded, settings), ["Сапоги промокают"], settings)


@pytest.mark.parametrize("role", ["writer", "labeler"])
@pytest.mark.parametrize("ask", [write, judge])
def test_scores_that_overflow_stop_writing_and_asking_with_the_setting_that_mends_it(tmp_path, ask, role):
    settings = settings_for("cpu", writer=overflowing(tmp_path))
    found = pytest.raises(UserError, match=rf"^{role} .*not finite: fp16 overflows.*CHANGES = .* GiB ")
    with causal_lm(settings.writer, "cpu", role) as loaded, found as error:
        ask(loaded, settings)
    assert "\n" not in str(error.value)
    changes = ast.literal_eval(re.search("CHANGES = (.*}) computes", str(error.value))[1])
    mended = settings_for("cpu", **changes)
    assert changes.keys() == {role} and getattr(mended, role) == ModelSpec(str(tmp_path), weights="fp32", chat=True)
    with causal_lm(getattr(mended, role), "cpu") as loaded:
        ask(loaded, settings)


def test_scores_that_are_not_finite_in_fp32_say_that_the_weights_are_at_fault(tmp_path):
    model, tokenizer = tiny_qwen2()
    model.model.norm.weight.data[0] = torch.nan
    model.save_pretrained(tmp_path), tokenizer.save_pretrained(tmp_path)
    with causal_lm(ModelSpec(str(tmp_path)), "cpu") as loaded, pytest.raises(UserError, match="weights are damaged"):
        write(loaded, None)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_only_a_row_whose_text_is_over_may_have_scores_that_are_not_finite(broken):
    process = SeededTopP(1.0, 0.9, [1, 2], ends=[3])
    scores = torch.zeros(2, 6)
    scores[0, 3] = 100.0
    assert process(None, scores)[0].argmax() == 3
    scores[0, 1] = broken
    process(None, scores)
    with pytest.raises(UserError, match="not finite"):
        process(None, scores.flip(0))


PREFIX, TAIL = "Отзыв переписан другими словами.\n\nОтзыв: ", "\nДругими словами:"


@pytest.mark.parametrize("window", [None, 40, 70, 400])
def test_a_prefix_read_once_changes_nothing_whatever_the_window(window):
    model, tokenizer = tiny_gemma3(sliding_window=window) if window else tiny_qwen2()
    tokenizer.padding_side = "left"
    prompt = PromptTokens(tokenizer, PREFIX, TAIL)
    prompts = [prompt.with_text(review) for review in REVIEWS]
    prompts[0] = (prompts[0][0] - 3, [*prompt.prefix_ids[prompts[0][0] - 3 : prompts[0][0]], *prompts[0][1]])
    whole = [(0, [*prompt.prefix_ids[:shared], *rest]) for shared, rest in prompts]
    plain = Sampler(model, tokenizer, temperature=0.8, top_p=0.9, max_new_tokens=20)(whole, [1, 2, 3])

    read = []
    model.register_forward_pre_hook(lambda _, args, kwargs: read.append(ids_of(args, kwargs).shape), with_kwargs=True)
    ours = Sampler(model, tokenizer, prompt.prefix_ids, temperature=0.8, top_p=0.9, max_new_tokens=20)
    assert ours(prompts, [1, 2, 3]) == plain
    assert ours(prompts[::-1], [3, 2, 1]) == plain[::-1]
    alone = [tokens for rows, tokens in read if rows == 1]
    assert alone == ([len(prompt.prefix_ids)] if window in (None, 400) else [])  # too narrow a window: nothing shared


def ids_of(args, kwargs):
    return args[0] if args else kwargs["input_ids"]


def drawn(logits, seeds, temperature=1.0, top_p=1.0):
    """The tokens that seeded sampling takes, one a row."""
    scores = SeededTopP(temperature, top_p, seeds)(None, logits)
    assert (scores.isfinite().sum(-1) == 1).all()
    return scores.argmax(-1).tolist()


def test_what_rounding_does_to_the_order_of_likely_tokens_seldom_changes_the_draw():
    logits = torch.randn(1000, 40, generator=torch.Generator().manual_seed(0))
    rounded = [drawn((logits + shift).bfloat16().float(), range(1000)) for shift in (3.0, 3.003)]
    assert not torch.equal((logits + 3.0).bfloat16().sort().indices, (logits + 3.003).bfloat16().sort().indices)
    assert sum(map(int.__eq__, *rounded)) > 980


def test_draws_follow_temperature_and_never_take_an_impossible_token():
    logits = torch.tensor([1.0, 0.0, -1.0, float("-inf")])
    counts = Counter(drawn(logits.repeat(4000, 1), range(4000), temperature=0.7))
    shares = [counts[i] / 4000 for i in range(4)]
    assert shares == pytest.approx(torch.softmax(logits / 0.7, 0).tolist(), abs=0.03)
    assert shares[3] == 0


@pytest.mark.parametrize("likeliest", [2, 1024])
@pytest.mark.parametrize(("top_p", "temperature"), [(0.05, 1.0), (0.5, 0.6), (0.9, 0.8), (1.0, 1.5)])
def test_only_the_nucleus_is_drawn_from_however_many_tokens_are_looked_at_first(
    monkeypatch, top_p, temperature, likeliest
):
    monkeypatch.setattr(generation, "LIKELIEST", likeliest)
    logits = torch.randn(40, generator=torch.Generator().manual_seed(0)) * 2
    warped = TopPLogitsWarper(top_p)(None, TemperatureLogitsWarper(temperature)(None, logits[None]))[0]
    counts = Counter(drawn(logits.repeat(3000, 1), range(3000), temperature, top_p))
    expected = torch.softmax(warped, 0)
    assert all(expected[token] > 0 for token in counts)
    assert [counts[i] / 3000 for i in range(40)] == pytest.approx(expected.tolist(), abs=0.035)


def test_text_ends_before_the_stop_string(qwen):
    stop = "о"
    texts = sampler(qwen, stop=stop, max_new_tokens=40)(prompts_of(qwen[1], "да", "нет", "обувь"), [1, 2, 3])
    assert all(stop not in text for text in texts)
    assert any(texts)


def test_special_tokens_are_not_part_of_the_text(qwen):
    texts = sampler(qwen, max_new_tokens=60)(prompts_of(qwen[1], *["да"] * 8), range(8))
    assert not any("<|" in text for text in texts)
