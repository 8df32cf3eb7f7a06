"""The prompts: conversations, one set for every model; their Russian words stand in data/prompts.toml.

A chat model gets system text, examples and review as turns of its chat template, a base model as one text. Rendering
splits the whole prompt at the review, so that the fixed text before it is encoded once and the review stays data.

    prefix, tail = split_prompt(template_for("judge", settings.prompts), tokenizer, spec.chat)
"""

import re
import string
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from .errors import UserError
from .files.decoding import read_toml
from .kinds import Json, JsonView, Tokenizer
from .models.text_tokens import markers
from .settings import BUNDLED

FILE = "prompts.toml"
REVIEW = "review"
ROLES = ("user", "assistant")
PARTS: dict[str, tuple[str, ...]] = {name: ("system", "examples", "user") for name in ("label", "paraphrase", "judge")}
PARTS["judge"] += ("yes", "no")
_SLOT = "\ue000review\ue000"  # private-use characters: no template or tokenizer produces them
_OPEN_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>\s*\Z")
Turns = tuple[tuple[str, str], ...]  # what stands for $review, and the answer to it


@dataclass(frozen=True)
class Template:
    """`system` and `user` are texts with $variables; `user` holds $review once, after everything that is fixed.

    The examples stand between them. `yes` and `no` are the judge's answers; the other prompts have none of their own.
    """

    name: str
    system: str
    user: str
    examples: Turns = ()
    yes: str = ""
    no: str = ""

    def conversation(self, **values: str) -> tuple[str, Turns]:
        """The filled system text and the turns, the last of them, about `review`, without an answer."""
        try:
            system, user = string.Template(self.system).substitute(values), string.Template(self.user)
            turns = (*self.examples, (values[REVIEW], ""))
            return system, tuple((user.substitute({**values, REVIEW: text}), answer) for text, answer in turns)
        except KeyError as error:
            known = ", $".join(sorted(values))
            raise UserError(
                f"prompt {self.name!r} uses ${error.args[0]}, which nothing fills; it may use: ${known}."
            ) from None
        except ValueError:
            raise UserError(f"prompt {self.name!r} holds a $ that begins no variable; write $$ for the sign.") from None


_CHECKED = TypeAdapter(Template)
_OWN = read_toml(BUNDLED / FILE)
FOR_A_BASE_MODEL: dict[str, Json] = _OWN.pop("for_a_base_model")
PROMPTS = {name: _CHECKED.validate_python({"name": name, **parts}) for name, parts in _OWN.items()}


def read_prompts(folder: Path) -> dict[str, Json]:
    """What a data folder's prompts.toml puts in place of the project's prompts: for some names, some of the PARTS."""
    path = folder / FILE
    prompts = read_toml(path) if path.exists() else {}
    for name, parts in prompts.items():
        if not isinstance(parts, dict):
            raise UserError(f'{path}: [{name}] must be a table of texts, such as system = "…" and user = "… $review".')
    return prompts


def template_for(name: str, replaced: Mapping[str, JsonView]) -> Template:
    """The template in force: the project's own, or what a user's settings put in its place."""
    if unknown := sorted(set(replaced) - set(PROMPTS)):
        raise UserError(f"unknown prompt {', '.join(unknown)}; the prompts are: {', '.join(PROMPTS)}.")
    parts = dict(replaced.get(name, {}))
    if set(parts) - set(PARTS[name]):
        raise UserError(f"prompt {name!r} has the parts {', '.join(map(repr, PARTS[name]))}; got {sorted(parts)}.")
    try:
        template = _CHECKED.validate_python(vars(PROMPTS[name]) | parts)
    except ValidationError as error:
        part = error.errors()[0]["loc"][0]
        kind = 'pairs of a text and its answer, such as [["…", "…"], ["…", "…"]]' if part == "examples" else "text"
        raise UserError(f"prompt {name!r}: {part} must be {kind}.") from None
    if REVIEW in _variables(template.system) or _variables(template.user).count(REVIEW) != 1:
        raise UserError(f"prompt {name!r}: $review must stand exactly once, in the user part.")
    if name == "judge":
        answers = {template.yes.strip(), template.no.strip()}
        if len(answers - {""}) < 2:
            given = f"{template.yes!r}, {template.no!r}"
            raise UserError(f"prompt {name!r}: yes and no must be two different words; got {given}.")
        if other := {answer for _, answer in template.examples} - answers:
            raise UserError(f"prompt {name!r}: an example answers {other.pop()!r}, which is neither yes nor no.")
    return template


def split_prompt(template: Template, tokenizer: Tokenizer, chat: bool, **values: str) -> tuple[str, str]:
    """The whole prompt as the text before the review and the text after it, special tokens written out in both."""
    system, turns = template.conversation(**values, review=_SLOT)
    text = "\n\n".join([system, *(f"{user} {answer}".rstrip() for user, answer in turns)])
    prompt = _in_chat(tokenizer, system, turns, text) if chat else f"{tokenizer.bos_token or ''}{text}"
    prefix, tail = prompt.split(_SLOT)
    return prefix, tail


def answer_end(tokenizer: Tokenizer, chat: bool) -> str | None:
    """What an answer ends with: the line for a base model, in a chat the token that the template closes a turn with."""
    if not chat:
        return "\n"
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _SLOT}]
    with suppress(Exception):  # the end token will do
        behind = _rendered(tokenizer, turns, False).rpartition(_SLOT)[2].lstrip()
        known = (token.content for token in markers(tokenizer).values())
        return max((token for token in known if behind.startswith(token)), key=len)
    end: str | None = tokenizer.eos_token
    return end


def _in_chat(tokenizer: Tokenizer, system: str, turns: Turns, text: str) -> str:
    """A conversation in the model's chat template, up to where the last answer begins.

    A template that refuses a system text, or leaves it out, gets it in front of the first turn; one that holds a single
    turn gets the whole as one `text`. One that opens a thought gets an empty one: what is asked for is the answer.
    """
    said = [{"role": role, "content": part} for turn in turns for role, part in zip(ROLES, turn, strict=True)][:-1]
    first = {"role": "user", "content": f"{system}\n\n{turns[0][0]}"}
    whole = [{"role": "user", "content": text}]
    for messages in ([{"role": "system", "content": system}, *said], [first, *said[1:]], whole):
        try:
            prompt = _rendered(tokenizer, messages, True)
        except Exception as error:  # templates are programs: anything may come
            reason = re.split(r"[.!?](?:\s|$)|\n", str(error), maxsplit=1)[0] or type(error).__name__
            continue
        if prompt.count(_SLOT) == 1 and all(message["content"].strip() in prompt for message in messages):
            thought = _OPEN_THOUGHT.search(prompt)
            return prompt if thought is None else f"{prompt.rstrip()}\n\n</{thought[1]}>\n\n"
        reason = "it leaves out, doubles or changes what the messages say"
    raise UserError(
        f"{tokenizer.name_or_path}: its chat template cannot hold the prompt: {reason}. Choose an instruction-tuned "
        "model with a template that can, or set chat=False for a base model."
    )


def _rendered(tokenizer: Tokenizer, messages: list[dict[str, str]], answer: bool) -> str:
    """Messages as the template writes them, thinking switched off where it has a switch; `answer` begins one."""
    switches: Json = {"enable_thinking": False, "thinking": False}
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer, **switches))


def _variables(text: str) -> list[str]:
    found = string.Template.pattern.findall(text)
    return [plain or braced for _, plain, braced, _ in found if plain or braced]


def one_line(text: str) -> str:
    """A text without line breaks, as every prompt takes it: they end an example in the prompts for base models."""
    return " ".join(text.split())
