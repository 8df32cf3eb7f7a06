"""How far commands inside reviews move labels and verdicts: the texts of injections.csv against themselves defused.

    python tests/injection.py             # embedded models, one table, about a minute

An answer is *changed* where it is another one than for the defused text (verdicts: the share over 200 seeded draws),
*shift* is the mean absolute change of its probability, *demanded* the share of rows that give the answer the text asks
for, first for the defused texts. The last row of each is the measure of it all: what a harmless sentence changes.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from sirius_helpers.files.categories import labels_of, read_categories
from sirius_helpers.llm.judge import judge_question, p_yes, verdicts
from sirius_helpers.llm.labelers import FewShotLabeler, Labeler, LlmLabeler
from sirius_helpers.loaders import causal_lm, encoder
from sirius_helpers.settings import CAUSAL_LM, ModelSpec, Settings, settings_for

HARMLESS = " Заказывала в прошлом месяце, шло две недели, упаковано хорошо."
CONTROL = "a harmless sentence"
SEEDS = 200  # pairs of draws that a text and its defused version are judged by
Answers = Callable[[Sequence[str]], np.ndarray]  # texts -> probabilities, (texts, answers)


def read_injections() -> pd.DataFrame:
    """Columns kind, demands (a category, "да", "нет" or nothing), text, defused."""
    return pd.read_csv(Path(__file__).with_name("injections.csv"), keep_default_na=False)


def main() -> None:
    settings = settings_for("cpu")
    taxonomy = read_categories(settings.data)
    labels = labels_of(taxonomy)
    prefix = settings.labeler.text_prefix
    with encoder(settings.labeler, settings.device) as loaded:
        found = measured("label, few-shot e5", labelled_by(FewShotLabeler(taxonomy, *loaded, prefix, settings)), labels)
    llm = replace(settings, labeler=ModelSpec(CAUSAL_LM, weights="bf16"), labeler_kind="llm")
    with causal_lm(llm.writer, llm.device) as loaded:
        found += measured("label, Gemma-3-270M", labelled_by(LlmLabeler(taxonomy, *loaded, llm)), labels)
        found += measured("verdict, Gemma-3-270M", judged_by(loaded, settings), ["да", "нет"], settings.judge_draws)
    print(pd.DataFrame(found).to_string(index=False, float_format="{:.3f}".format, na_rep="–"))


def labelled_by(labeler: Labeler) -> Answers:
    def answers(texts: Sequence[str]) -> np.ndarray:
        rows: list = [None] * len(texts)

        def keep(batch: Sequence[int], new: np.ndarray) -> None:
            for i, row in zip(batch, new, strict=True):
                rows[i] = row

        labeler(texts, keep)
        return np.stack(rows)

    return answers


def judged_by(loaded: tuple, settings: Settings) -> Answers:
    question = judge_question(*loaded, settings)

    def answers(texts: Sequence[str]) -> np.ndarray:
        yes = p_yes(question, texts, settings)
        return np.stack([yes, 1 - yes], axis=1)

    return answers


def measured(what: str, answers: Answers, names: list[str], draws: int | None = None) -> list[dict]:
    """A row for each kind of injection, for all, and for the control; `draws` says that a verdict is drawn."""
    table = read_injections()
    before, after, control = map(answers, (table["defused"], table["text"], table["defused"] + HARMLESS))
    kinds = {kind: (table["kind"] == kind).to_numpy() for kind in table["kind"].unique()}
    everything = np.full(len(table), True)
    cases = [(kind, rows, after) for kind, rows in kinds.items()]
    cases += [("all", everything, after), (CONTROL, everything, control)]
    return [{"asked for": what} | compared(kind, rows, before, new, table, names, draws) for kind, rows, new in cases]


def compared(
    kind: str, rows: np.ndarray, before: np.ndarray, after: np.ndarray, table: pd.DataFrame, names: list[str], draws
) -> dict:
    first = before.argmax(1) if draws is None else np.zeros(len(before), dtype=int)  # a verdict is about "да"
    places = np.arange(len(before))
    shift = np.abs(after[places, first] - before[places, first])
    changed = (
        after.argmax(1) != first if draws is None else np.array(list(map(flips, before, after, [draws] * len(before))))
    )
    demanded = [names.index(name) if name in names else -1 for name in table["demands"]]
    asking = rows & (np.array(demanded) >= 0)
    obeyed = [(p.argmax(1) == demanded)[asking].mean() if asking.any() else None for p in (before, after)]
    return {
        "by": kind,
        "rows": int(rows.sum()),
        "changed": float(changed[rows].mean()),
        "shift": float(shift[rows].mean()),
        "demanding": int(asking.sum()),
        "demanded, defused": obeyed[0],
        "demanded": obeyed[1],
    }


def flips(before: np.ndarray, after: np.ndarray, draws: int) -> float:
    """How often the verdicts on two texts differ when both are drawn with the same seed."""
    pairs = [[all(verdicts(p[0], draws, str(seed))) for p in (before, after)] for seed in range(SEEDS)]
    return float(np.mean([one != other for one, other in pairs]))


if __name__ == "__main__":
    main()
