"""The judge: "review or refusal?" as a closed question, its seeded verdicts, and how far it can be trusted.

question = judge_question(model, tokenizer, settings)
control = read_control(settings.data)                                # columns text, is_review
report = judge_report(control.assign(p_yes=p_yes(question, control["text"], settings)), settings.judge_draws)
"""

import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from ..errors import UserError
from ..files.tables import read_table
from ..kinds import Json, LanguageModel, Tokenizer
from ..prompts import one_line, template_for
from ..settings import BUNDLED, Settings
from .questions import ClosedQuestion, closed_question

FILE = "judge_control.csv"
# How people and spreadsheets write the two answers.
ANSWERS = dict.fromkeys(("true", "1", "да", "истина"), "yes") | dict.fromkeys(("false", "0", "нет", "ложь"), "no")
CONTENT_FREE = ("", "…", "нет")  # texts that say nothing


def judge_question(model: LanguageModel, tokenizer: Tokenizer, settings: Settings) -> ClosedQuestion:
    """The judge's question with its two answers, yes first."""
    template = template_for("judge", settings.prompts)
    answers, prior = [template.yes, template.no], CONTENT_FREE if settings.prior_correction else ()
    return closed_question(template, settings.writer, answers, model, tokenizer, settings, prior)


def p_yes(question: ClosedQuestion, texts: Iterable[str], settings: Settings) -> np.ndarray:
    """Probability of "yes" at the judge's temperature, (texts,).

    Two answers part at a single place, so dividing their log-probabilities by the temperature is what sampling does.
    """
    log_probs = question.log_probs([one_line(text) for text in texts]) / settings.judge_temperature
    return 1 / (1 + np.exp(log_probs[:, 1] - log_probs[:, 0]))


def verdicts(probability: float, draws: int, seed: str) -> list[bool]:
    """Independent seeded draws of the judge's answer: what asking it `draws` times at its temperature gives."""
    source = random.Random(seed)
    return [source.random() < probability for _ in range(draws)]


def control_file(folder: Path) -> Path:
    """Where the control texts stand: the data folder's own, or else the package's, Russian product reviews."""
    own = folder / FILE
    return own if own.exists() else BUNDLED / FILE


def read_control(folder: Path) -> pd.DataFrame:
    """The control texts: columns text, is_review (bool). Those that a prompt was chosen by would flatter it."""
    path = control_file(folder)
    table = read_table(path, ["text", "is_review"])
    if "half" in table:
        table = table[table["half"].str.strip().str.lower() != "choose"]
    answers = table["is_review"].str.strip().str.lower().replace(ANSWERS)
    for row, text, answer in zip(table.index + 1, table["text"], answers, strict=True):
        if not text.strip() or answer not in ("yes", "no"):
            wrong = f"is_review is {answer!r}" if text.strip() else "text is empty"
            raise UserError(f"{path}, row {row}: {wrong}; write a text and yes (genuine) or no (refusal, other talk).")
    if answers.nunique() < 2:
        given = f"is_review is {answers.iloc[0]!r}" if len(answers) else "half is 'choose'"
        raise UserError(f"{path}: {given} in every row that the judge may be tried on; it needs texts of both kinds.")
    return table.assign(is_review=answers == "yes")[["text", "is_review"]].reset_index(drop=True)


def judge_report(judged: pd.DataFrame, draws: int) -> Json:
    """How the judge does on texts whose answer is known: columns is_review, p_yes.

    `accuracy` and `kappa` are those of the likelier answer; `reviews_pass` and `refusals_pass` the expected shares that
    all draws accept; `beats_chance` whether always naming the more frequent kind would do as well with p < 0.05.
    """
    passing, truth = judged["p_yes"].to_numpy() ** draws, judged["is_review"].to_numpy(dtype=bool)
    guess = judged["p_yes"].to_numpy() >= 0.5
    hits, most_frequent = int((truth == guess).sum()), max(truth.mean(), 1 - truth.mean())
    chance = binomtest(hits, len(truth), most_frequent, alternative="greater").pvalue
    return {
        "texts": len(truth),
        "accuracy": hits / len(truth),
        "kappa": float(cohen_kappa_score(truth, guess)),
        "reviews_pass": float(passing[truth].mean()),
        "refusals_pass": float(passing[~truth].mean()),
        "beats_chance": bool(chance < 0.05),
    }
