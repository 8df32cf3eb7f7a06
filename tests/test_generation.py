from collections import Counter

import pytest
import torch
from tiny_models import tiny_gemma3, tiny_qwen2
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from sirius_helpers import generation
from sirius_helpers.generation import Sampler, SeededTopP
from sirius_helpers.prompt_tokens import PromptTokens


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


PREFIX, TAIL = "Отзыв переписан другими словами.\n\nОтзыв: ", "\nДругими словами:"
REVIEWS = ["да", "сапоги малы, пришлось вернуть", "Отзыв: нет"]


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
