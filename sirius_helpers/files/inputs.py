"""Everything a user can get wrong in the input files and in naming models, checked before any weights are loaded."""

import math
from pathlib import Path

import pandas as pd
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel

from ..encoder.embedding import MAX_TOKENS
from ..errors import UserError
from ..llm import judge
from ..llm.labelers import label_prompt, pooled_with
from ..loaders import load_config, load_model, load_tokenizer, skeleton
from ..models.checks import check_layers, check_positions
from ..models.text_tokens import PromptTokens
from ..prompts import FILE as PROMPTS_FILE
from ..prompts import FOR_A_BASE_MODEL, PROMPTS, Template, one_line, read_prompts, split_prompt, template_for
from ..settings import CAUSAL_LM, CHAT_LM, ENCODER, ModelSpec, Settings
from .categories import Category, described, labels_of, need_examples, read_categories
from .reviews import CORRECTIONS, read_corrections, read_labelled, read_reviews, read_texts


def check_inputs(settings: Settings) -> pd.DataFrame:
    """Read every input once: columns file, rows, what. The first thing wrong raises a UserError."""
    folder = settings.data
    taxonomy, reviews = read_categories(folder), read_reviews(folder / "train.csv")
    rows = [
        ("train.csv", len(reviews), "reviews to label and learn from"),
        ("test.csv", len(read_texts(folder / "test.csv")), "reviews to classify"),
        ("categories", len(taxonomy), ", ".join(labels_of(taxonomy))),
    ]
    if settings.labels:
        rows.append((settings.labels.name, len(read_labelled(settings.labels, taxonomy)), "ready-made labels"))
    if (human := folder / "human_labels.csv").exists():
        rows.append((human.name, len(read_labelled(human, taxonomy)), "human labels, read by the evaluation only"))
    control = judge.read_control(folder)  # the package's own, where the folder brings none
    if (folder / judge.FILE).exists():
        rows.append((judge.FILE, len(control), "texts with a known answer that the judge is tried on"))
    if (path := settings.folder / CORRECTIONS).exists():
        rows.append((path.name, len(read_corrections(path, taxonomy, reviews)), "your corrections of the labels"))
    _check_prompts(settings, taxonomy)
    longest = one_line(max(reviews["text"], key=len))[: settings.max_review_chars]
    if not settings.labels:
        asked = settings.labeler_kind == "llm"
        if by_examples := pooled_with(settings) if asked else settings.labeler:
            need_examples(taxonomy, folder)
            _check_reading(by_examples, MAX_TOKENS)
        if asked:
            _check_writing(settings.labeler, ("label",), settings, taxonomy, longest)
    _check_writing(settings.writer, ("paraphrase", "judge"), settings, taxonomy, longest)
    if (second := settings.second_labeler) and not second.on_hub:
        _check_reading(second, MAX_TOKENS)
    base = _check_reading(settings.classifier, settings.max_tokens)
    check_layers(settings.classifier.name, base, settings.lora_targets)
    return pd.DataFrame(rows, columns=["file", "rows", "what"])


def _check_reading(spec: ModelSpec, max_tokens: int) -> PreTrainedModel:
    """An encoder without its weights, its configuration, tokenizer and a folder's names of weights found right."""
    load_config(spec, causal=False)
    if spec.name != ENCODER:
        load_tokenizer(spec)
    model = load_model(AutoModel, spec, "meta") if Path(spec.name).is_dir() else skeleton(AutoModel, spec)
    check_positions(spec.name, model, max_tokens)
    return model


def _check_writing(
    spec: ModelSpec, prompts: tuple[str, ...], settings: Settings, taxonomy: list[Category], longest: str
) -> None:
    """The same of a language model, which gets its prompts with the longest review here, as the stages put them."""
    if (spec.name, spec.chat) in ((CAUSAL_LM, False), (CHAT_LM, True)):
        return  # known, and its tokenizer takes seconds
    config = None if spec.server else load_config(spec, causal=True).get_text_config()
    room = getattr(config, "max_position_embeddings", None) or math.inf
    tokenizer = load_tokenizer(spec)
    for name in prompts:
        template, values = _filled(name, taxonomy, settings)
        prefix, tail = split_prompt(template, tokenizer, spec.chat, **values)
        shared, rest = PromptTokens(tokenizer, prefix, tail).with_text(longest)
        needed = shared + len(rest) + settings.max_new_tokens
        if needed > room:
            raise UserError(
                f"{spec.name} has room for {room} tokens; prompt {name!r}, the longest review and an answer take "
                f"{needed}. Lower max_review_chars or max_new_tokens, or choose another model."
            )
    if "</think" in tail:
        print(f"{spec.name}: asked to answer without thinking first")
    if not spec.server and Path(spec.name).is_dir():
        load_model(AutoModelForCausalLM, spec, "meta")


def _check_prompts(settings: Settings, taxonomy: list[Category]) -> None:
    """Fill each prompt: a broken one shows here rather than after a download."""
    for name in PROMPTS:
        try:
            template, values = _filled(name, taxonomy, settings)
            template.conversation(**values, review="")
        except UserError as error:
            file = settings.data / PROMPTS_FILE
            known = FOR_A_BASE_MODEL | read_prompts(settings.data)
            others = any(known.get(other) != parts for other, parts in settings.prompts.items())
            places = [str(file)] * file.exists() + ["CHANGES"] * others
            raise UserError(f"{' or '.join(places)}: {error}") from None


def _filled(name: str, taxonomy: list[Category], settings: Settings) -> tuple[Template, dict[str, str]]:
    """A prompt and what its variables stand for, as its stage takes them."""
    if name == "label":
        return label_prompt(taxonomy, settings), {"categories": described(taxonomy)}
    return template_for(name, settings.prompts), {}
