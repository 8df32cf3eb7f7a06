from collections import Counter

import pytest
import torch
from tiny_models import tiny_qwen2

from sirius_helpers.generation import Sampler, SeededGumbel


@pytest.fixture(scope="module")
def qwen():
    model, tokenizer = tiny_qwen2()
    tokenizer.padding_side = "left"
    return model, tokenizer


def sampler(qwen, **changes):
    return Sampler(*qwen, **({"temperature": 0.8, "top_p": 0.9, "max_new_tokens": 12} | changes))


def prompts_of(tokenizer, *texts):
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]


def test_a_row_depends_on_its_own_seed_and_not_on_its_neighbours(qwen):
    prompts = prompts_of(qwen[1], "Отзыв: да", "Отзыв: сапоги малы", "нет")
    together = sampler(qwen)(prompts, [1, 2, 3])
    alone = [sampler(qwen)([prompt], [seed])[0] for prompt, seed in zip(prompts, [1, 2, 3], strict=True)]
    assert together == alone
    assert sampler(qwen)(prompts[:1], [9])[0] != together[0]


def test_gumbel_noise_samples_the_distribution_and_never_what_top_p_left_out():
    logits = torch.tensor([[1.0, 0.0, -1.0, float("-inf")]])
    draws = [int(SeededGumbel([seed])(None, logits.clone()).argmax()) for seed in range(4000)]
    shares = [Counter(draws)[i] / 4000 for i in range(4)]
    assert shares == pytest.approx(torch.softmax(logits[0], 0).tolist(), abs=0.03)
    assert shares[3] == 0


def test_text_ends_before_the_stop_string(qwen):
    stop = "о"
    texts = sampler(qwen, stop=stop, max_new_tokens=40)(prompts_of(qwen[1], "да", "нет", "обувь"), [1, 2, 3])
    assert all(stop not in text for text in texts)
    assert any(texts)


def test_special_tokens_are_not_part_of_the_text(qwen):
    texts = sampler(qwen, max_new_tokens=60)(prompts_of(qwen[1], *["да"] * 8), range(8))
    assert not any("<|" in text for text in texts)
