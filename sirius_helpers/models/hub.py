"""Models of the Hugging Face hub: the commit that has safetensors, its files that are used, and their download.

source = source_of(spec)                           # source.commit, source.files, source.missing
folder = fetch(source, weights=True)               # what `from_pretrained` takes
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

from huggingface_hub import HfApi, constants, errors, hf_hub_download, scan_cache_dir, try_to_load_from_cache
from tqdm.std import tqdm

from ..errors import UserError, refusal
from ..settings import ModelSpec

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SMALL = ("*.json", "*.txt", "*.model", "*.jinja")  # configuration and tokenizer of whatever kind
BOT = "SFconvertbot"  # the hub's own account that offers safetensors as pull requests
TIMEOUT = 20.0  # seconds until a hub counts as silent; its library would wait for ever
# What a hub that does not answer as it should raises; the first is the HTTP library's, whichever that is.
_TROUBLE: tuple[type[Exception], ...] = (*errors.HfHubHTTPError.__bases__, ValueError, RuntimeError)


@dataclass(frozen=True)
class Source:
    """A commit of a hub model, and those of its files that are used."""

    name: str
    commit: str  # all 40 digits
    files: Mapping[str, int]  # name -> bytes; the weights, *.safetensors, stand last
    listed: bool = True  # by the hub itself; otherwise found in the cache

    @property
    def missing(self) -> int:
        """Bytes that are not in the cache yet."""
        there = (try_to_load_from_cache(self.name, file, revision=self.commit) for file in self.files)
        return sum(size for size, path in zip(self.files.values(), there, strict=True) if not isinstance(path, str))


@cache
def source_of(spec: ModelSpec) -> Source:
    """The commit to load a model from: the revision asked for or main, or the bot's pull request right on top of it.

    Of one that a server holds the tokenizer alone. Where the hub does not answer or refuses, what an earlier download
    left is searched; a revision that is nowhere is replaced by main. UserError: no such model, access or safetensors.
    """
    try:
        return _listed(spec)
    except _TROUBLE as error:
        with suppress(OSError, errors.CacheNotFound):  # what cannot be read is not there
            if found := _cached(spec):
                return found
        if spec.revision and isinstance(error, errors.RevisionNotFoundError):
            print(f"{spec.name}: the hub has no revision {spec.revision} (any longer), so its main branch is taken.")
            return source_of(replace(spec, revision=None))
        raise UserError(_trouble(spec.name, error)) from error


def fetch(source: Source, weights: bool) -> Path:
    """The folder in the hub's cache with the source's files; without `weights` only the small ones are downloaded."""
    folder = Path(constants.HF_HUB_CACHE)
    for file in source.files:
        if file.endswith(".safetensors") and not weights:
            break
        try:
            folder = Path(hf_hub_download(source.name, file, revision=source.commit)).parent
        except _TROUBLE as error:
            reason, remedy = _reason(error)
            raise UserError(
                f"{file} of the model {source.name!r} could not be downloaded ({reason}). {remedy}, then run the same "
                "again: finished files are kept."
            ) from error
    return folder


def check_disk(sources: Iterable[Source]) -> None:
    """Refuse downloads that the disk cannot hold, before the first of them begins."""
    once = {(source.name, source.commit): source for source in sources}
    needed, free = sum(source.missing for source in once.values()), free_disk()
    if needed > free:
        raise UserError(
            f"the hub models need {size(needed)} more on the disk of {constants.HF_HUB_CACHE}, and {size(free)} are "
            "free there. Free some, set HF_HOME to a folder on a larger disk, or choose smaller models."
        )


def free_disk() -> int:
    """Bytes that the disk of the hub's cache can still hold."""
    cache = Path(constants.HF_HUB_CACHE).absolute()
    return shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.exists())).free


def size(number: int) -> str:
    """Bytes as a person reads them, such as 15.2GB."""
    return tqdm.format_sizeof(number, "B") if number else "nothing"


def _listed(spec: ModelSpec) -> Source:
    main = _at(spec, spec.revision)
    if isinstance(main, Source):
        return main
    hub, name = HfApi(), spec.name
    try:
        found = hub.get_repo_discussions(name, author=BOT, discussion_type="pull_request", discussion_status="open")
        offers = [offer.num for offer in found if offer.author == BOT]
    except errors.HfHubHTTPError as error:
        if error.response.status_code != 403:  # the owner allows no pull requests
            raise
        offers = []
    for number in offers:
        head, *rest = (c.commit_id for c in hub.list_repo_commits(name, revision=f"refs/pr/{number}"))
        if rest[:1] == [main] and isinstance(converted := _at(spec, head), Source):
            print(f"{name}: the safetensors of the hub's {BOT} are taken, pull request {number}, commit {head[:7]}.")
            return converted
    raise UserError(
        f"model {name!r} has no whole *.safetensors weights, neither at {spec.revision or 'main'} nor in an open pull "
        f"request of the hub's {BOT} on top of it. Convert it at {constants.ENDPOINT}/spaces/safetensors/convert, "
        "give a folder that `save_pretrained` wrote, or choose another model."
    )


def _at(spec: ModelSpec, revision: str | None) -> Source | str:
    """The source at a revision; its commit alone where that has no whole safetensors."""
    info = HfApi().model_info(spec.name, revision=revision, files_metadata=True, timeout=TIMEOUT)
    if info.gated:  # its listing is public, its files are not
        HfApi().auth_check(spec.name)
    commit = str(info.sha)
    return _source(spec, commit, {s.rfilename: s.size or 0 for s in info.siblings or ()}) or commit


def _cached(spec: ModelSpec) -> Source | None:
    """What an earlier download left whole, main's first, then the newest."""
    repos = [repo for repo in scan_cache_dir(constants.HF_HUB_CACHE).repos if repo.repo_type == "model"]
    commits = [commit for repo in repos if repo.repo_id == spec.name for commit in repo.revisions]
    for commit in sorted(commits, key=lambda c: ("main" in c.refs, c.last_modified), reverse=True):
        files = {f.file_path.relative_to(commit.snapshot_path).as_posix(): f.size_on_disk for f in commit.files}
        asked = spec.revision in (None, commit.commit_hash, *commit.refs)
        if asked and (found := _source(spec, commit.commit_hash, files, listed=False)):
            return found
    return None


def _source(spec: ModelSpec, commit: str, there: Mapping[str, int], listed: bool = True) -> Source | None:
    """The used ones of a commit's files, or None where its weights are not whole."""
    shards: set[str] = set()
    if not spec.server:
        if WEIGHTS in there:
            shards = {WEIGHTS}
        elif INDEX in there:
            index = json.loads(Path(hf_hub_download(spec.name, INDEX, revision=commit)).read_bytes())
            shards = set(index.get("weight_map", {}).values())
        if not (shards and shards <= there.keys()):
            return None
    small = {file for file in there if "/" not in file and any(fnmatch(file, kind) for kind in SMALL)}
    indexes = {file for file in small if file.endswith(".index.json")} - ({INDEX} if shards - {WEIGHTS} else set())
    used = [*sorted(small - indexes), *sorted(shards)]
    return Source(spec.name, commit, {file: there[file] for file in used}, listed)


def _trouble(name: str, error: Exception) -> str:
    """What is wrong and what to do, in one line."""
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    token = "into HF_TOKEN (on Colab: Secrets)"
    if isinstance(error, errors.GatedRepoError):
        said = f"is gated: accept its terms at {constants.ENDPOINT}/{name}, and put a token of that account {token}"
    elif isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403):
        said = f"is not on the hub, or is private: check the name; or put a token that may read it {token}"
    elif isinstance(error, errors.HFValidationError):
        said = "is neither a folder here nor a name on the hub (owner/name); check it"
    else:
        reason, remedy = _reason(error)
        said = f"was found neither in the cache {constants.HF_HUB_CACHE} nor on the hub ({reason}). {remedy}, then run "
        said += "this again, or give the folder of a model that is here"
    return f"model {name!r} {said}."


def _reason(error: Exception) -> tuple[str, str]:
    """What was the matter, here or on the way to the hub, and what to do."""
    if refused := refusal(error):
        return refused[1:]
    cause = error.__cause__ or error  # the library's own advice is about its own options
    return (str(cause).splitlines() or [""])[0].rstrip(" .") or type(cause).__name__, "Check the network"
