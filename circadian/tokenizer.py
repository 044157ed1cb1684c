"""A version's tokenizer without transformers: the library `tokenizers` reads its file, and chats are rendered as transformers renders them.

It reads texts and chats; what transformers' own class does besides (padding, truncation, tools, decoding) is left out. Some of those
classes build their tokenizer anew from the file's vocabulary: where that reads otherwise, a version is founded with files that say what the
class does (circadian/memory/version.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from circadian.memory.folder import VersionBroken

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
TEMPLATE_FILE = "chat_template.jinja"


class PlainTokenizer:
    """Called as transformers' are, as far as reading goes."""

    def __init__(self, tokenizer: Tokenizer, special: Mapping[str, str], chat_template: str | None) -> None:
        """special: by what it is called, such as `bos_token`."""
        self._tokenizer, self.special_tokens_map, self.chat_template = tokenizer, dict(special), chat_template
        tokenizer.no_padding()
        tokenizer.no_truncation()

    @classmethod
    def read(cls, folder: Path) -> PlainTokenizer:
        """Of a version's folder. Raises VersionBroken."""
        try:
            config = _json(folder / CONFIG_FILE)
            tokenizer = Tokenizer.from_str((folder / TOKENIZER_FILE).read_text())
        except FileNotFoundError as error:
            raise VersionBroken(f"{folder} has no {TOKENIZER_FILE}; found the deployment anew, which writes one") from error
        except Exception as error:  # tokenizers raises Exception itself for a file that it cannot read
            raise VersionBroken(
                f"{folder / TOKENIZER_FILE} cannot be read ({error}); restore it from a copy of the version"
            ) from error
        tokenizer.encode_special_tokens = bool(config.get("split_special_tokens", False))
        template = folder / TEMPLATE_FILE
        return cls(
            tokenizer, _special(config), template.read_text() if template.is_file() else _default(config.get("chat_template"))
        )

    @property
    def bos_token_id(self) -> int | None:
        return self._id("bos_token")

    @property
    def eos_token(self) -> str | None:
        return self.special_tokens_map.get("eos_token")

    @property
    def eos_token_id(self) -> int | None:
        return self._id("eos_token")

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """The text's `input_ids`."""
        return {"input_ids": self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}

    def apply_chat_template(
        self, conversation: Sequence[Mapping[str, str]], add_generation_prompt: bool = False, **names: Any
    ) -> dict[str, list[int]]:
        """A chat's `input_ids`; `names` are known to the template. Raises jinja2's TemplateError."""
        given = {"tools": None, "documents": None, **self.special_tokens_map, **names}
        text = _compiled(self.chat_template or "").render(
            messages=conversation, add_generation_prompt=add_generation_prompt, **given
        )
        return self(text, add_special_tokens=False)

    def _id(self, name: str) -> int | None:
        token = self.special_tokens_map.get(name)
        return None if token is None else self._tokenizer.token_to_id(token)


class _Generation(Extension):
    """`{% generation %}` marks what an assistant says; here it is only rendered."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=16)
def _compiled(template: str) -> Template:
    """In a sandbox: a template is code that came with a model."""
    jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    jinja.filters["tojson"] = _to_json
    jinja.globals["raise_exception"] = _refuse
    jinja.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return jinja.from_string(template)


def _to_json(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
    """Jinja's own escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _special(config: Mapping[str, Any]) -> dict[str, str]:
    """Texts of special tokens by name, which a config gives as text or as an object."""
    named = {**config, **(extra if isinstance(extra := config.get("extra_special_tokens"), dict) else {})}
    texts = {name: value.get("content") if isinstance(value, dict) else value for name, value in named.items()}
    return {name: text for name, text in texts.items() if name.endswith("_token") and isinstance(text, str)}


def _default(template: Any) -> str | None:
    """A config may give several by name."""
    if isinstance(template, list):
        template = {one["name"]: one["template"] for one in template}
    return template.get("default") if isinstance(template, dict) else template


def _json(path: Path) -> dict[str, Any]:
    """Nothing, where there is no such file."""
    return json.loads(path.read_text()) if path.is_file() else {}
