"""The tokenizer's files of a version: the base's, so that `vllm serve FOLDER` needs nothing else, and such that they can be read without
transformers (circadian/tokenizer.py).

transformers builds some tokenizers anew in their own classes, or from older files. Where its reading of a few texts is not what the files
alone say, or they say nothing, the founding version gets the files that transformers itself writes of that tokenizer.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from circadian.experience import Reading, Unreadable, chat_ids
from circadian.memory.folder import RECORD_FILE, VersionBroken
from circadian.tokenizer import PlainTokenizer

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
VOCABULARIES = ("tokenizer.json", "vocab.json", "tokenizer.model")
"""One of which every tokenizer has."""
SAMPLE = "The city of Mira, it's  1234.5 \t— naïve café ñ, 東京 🙂 !\n\n  def f(x):\n    return x\n"
ASKED = [{"role": "user", "content": SAMPLE}]
CHATS = (ASKED, [*ASKED, {"role": "assistant", "content": SAMPLE}])


def load_tokenizer(folder: Path):  # type: ignore[no-untyped-def]
    """The tokenizer of a version or base folder; code from the folder is never run."""
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Put the tokenizer of a version or a base into a version's folder. Raises VersionBroken where transformers cannot load a base's."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            (folder / name).write_bytes((source / name).read_bytes())
    if (source / RECORD_FILE).is_file() or not any((source / name).is_file() for name in VOCABULARIES):
        return
    try:
        whole = load_tokenizer(source)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise VersionBroken(f"{source} has no tokenizer that can be loaded ({error}); put its tokenizer files there") from error
    if not _reads_like(folder, whole):
        whole.save_pretrained(folder)


def _reads_like(folder: Path, whole: PreTrainedTokenizerBase) -> bool:
    try:
        plain = PlainTokenizer.read(folder)
    except VersionBroken:
        return False
    return (plain.eos_token, plain.bos_token_id) == (whole.eos_token, whole.bos_token_id) and _readings(plain) == _readings(whole)


def _readings(tokenizer: Reading) -> list[object]:
    """Of the sample with each special token in it, and of chats; None of a chat that the template refuses."""
    marked = SAMPLE + " ".join(tokenizer.special_tokens_map.values())
    texts = [tokenizer(marked, add_special_tokens=special)["input_ids"] for special in (True, False)]
    return [*texts, *(_chat(tokenizer, chat, answering) for chat in CHATS for answering in (True, False))]


def _chat(tokenizer: Reading, chat: list[dict[str, str]], answering: bool) -> tuple[int, ...] | None:
    try:
        return chat_ids(tokenizer, chat, answering)
    except (Unreadable, TemplateError):
        return None
