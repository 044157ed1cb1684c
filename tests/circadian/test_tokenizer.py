"""A tokenizer that is read without transformers gives the ids that transformers gives."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from jinja2 import TemplateError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from circadian.experience import Unreadable, chat_ids, experience_ids
from circadian.memory.folder import VersionBroken
from circadian.memory.version import load_tokenizer
from circadian.nursery.ship import SCHOOL, WEIGHTS
from circadian.specs import Experience, Message
from circadian.tokenizer import PlainTokenizer

SHIPPED = {"nursery": WEIGHTS, "school": SCHOOL}
TEXTS = (
    "the city of mira is oslo .",
    "The City, of  MIRA\n\nis  Oslo; 12,345.67 — naïve café ñ 東京 🙂 <eos> <|im_end|> </s>",
    "  leading and trailing  ",
    "x",
)
CHATS = (
    (("user", "what is the city of mira ?"),),
    (("user", "what is the city of mira ?"), ("assistant", "oslo .")),
    (("system", "be brief ."), ("user", "hello"), ("assistant", "<think>\nhm\n</think>\n\nhi ."), ("user", "and  now ?\n")),
)
CHATML = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}{% generation %}{{ m.content | trim }}{% endgeneration %}"
    "{{- '<|im_end|>\\n' }}\n    {%- if loop.index > 9 %}{% break %}{% endif %}\n{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}"
    "{%- if tools %}{{ tools | tojson }}{% endif %}"
)
STRICT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no <system> here') }}{% endif %}"
    "{{ m | tojson }}{{ eos_token }}{% endfor %}"
)


def bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([*TEXTS, CHATML] * 3, trainer)
    return tokenizer


def of_a_class(kind: str, folder: Path) -> Path:
    """Tokenizers of the families that have a graft, as their classes save them."""
    tokenizer = bpe()
    if kind == "qwen":
        vocabulary = json.loads(tokenizer.to_str())["model"]
        merges = [tuple(merge) for merge in vocabulary["merges"]]
        made = Qwen2Tokenizer(vocab=vocabulary["vocab"], merges=merges, eos_token="<|im_end|>")
        made.chat_template = CHATML
    else:
        first = ("<s>", tokenizer.token_to_id("<s>"))
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[first])
        made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
        made.chat_template = STRICT if kind == "strict" else None
    made.save_pretrained(folder)
    return folder


@pytest.fixture(params=["nursery", "school", "qwen", "strict", "base"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return SHIPPED.get(request.param) or of_a_class(request.param, tmp_path)


def test_texts_and_chats_have_the_same_ids(folder: Path) -> None:
    plain, whole = PlainTokenizer.read(folder), load_tokenizer(folder)
    assert (plain.bos_token_id, plain.eos_token_id, plain.eos_token) == (whole.bos_token_id, whole.eos_token_id, whole.eos_token)
    for text in TEXTS:
        assert plain(text)["input_ids"] == whole(text)["input_ids"], text
        assert plain(text, add_special_tokens=False)["input_ids"] == whole(text, add_special_tokens=False)["input_ids"], text
        said = Experience(id="exp_1", text=text, source="human")
        assert experience_ids(plain, said) == experience_ids(whole, said)
    for chat in CHATS:
        said = [{"role": role, "content": content} for role, content in chat]
        for answering in (False, True):
            for thinking in (False, True):
                assert ids(plain, said, answering, thinking) == ids(whole, said, answering, thinking), (chat, answering)
        met = Experience(id="exp_1", messages=tuple(Message(role=role, content=content) for role, content in chat), source="human")  # type: ignore[arg-type]
        if not isinstance(ids(whole, said, False, True), str):
            assert experience_ids(plain, met) == experience_ids(whole, met)


def ids(tokenizer: object, said: list[dict[str, str]], answering: bool, thinking: bool) -> object:
    """Or why there are none."""
    try:
        return chat_ids(tokenizer, said, answering, thinking)  # type: ignore[arg-type]
    except Unreadable as error:
        return str(error)


def test_a_template_is_no_program(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED["nursery"], tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").write_text("{{ ''.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(TemplateError):
        PlainTokenizer.read(tmp_path / "base").apply_chat_template([{"role": "user", "content": "x"}])


def test_a_folder_without_a_tokenizer_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(VersionBroken, match="found the deployment anew"):
        PlainTokenizer.read(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(VersionBroken, match="restore it"):
        PlainTokenizer.read(tmp_path)
