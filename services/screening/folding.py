"""A text without its disguises, so that a rule about words meets them however they are written.

`plain`: lower case, one space between words and nothing else, letters that look like Latin ones as those, no accents, nothing invisible;
text in tag characters, which a model reads and a person does not see, becomes visible. `fold`: words that are spelled out letter by
letter are words again, too. Neither undoes leetspeak, other languages, encodings or paraphrase.
"""

from __future__ import annotations

import unicodedata

import regex

TAGS = {0xE0000 + code: chr(code) for code in range(0x20, 0x7F)}
"""Unicode's invisible doubles of ASCII."""
CAPITALS = str.maketrans(
    "АВЕКМНОРСТУХЅІЈԌΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",  # noqa: RUF001
    "ABEKMHOPCTYXSIJGABEZHIKMNOPTYX",
)
"""Cyrillic and Greek capitals: their small forms look like other letters."""
LOOKALIKES = str.maketrans(
    "авгԁеһнікӏмпоԛрѕтѵԝхујҽαβγεηικνορτυχωօոսհցքզıɑɡɩłøđħŧᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ",
    "abrdehhiklmnoqpstvwxyjeabyenikvoptuxwonuhgpqiagilodhtabcdefghijklmnoprstuvwyz",
)
"""Cyrillic, Greek, Armenian, and Latin letters that no normal form turns into plain ones."""
HIDDEN = regex.compile(r"[\p{Mn}\p{Me}\p{Cf}\u115f\u1160\u3164\uffa0]|(?!\s)\p{Cc}")
"""Accents, joiners, direction marks, soft hyphens, fillers, control characters."""
WORD = regex.compile(r"[^\W_]++")
SPELLED = regex.compile(r"\b\p{L}(?: \p{L}\b){3,}+")


def plain(text: str) -> str:
    """Its words in lower case, one space between them."""
    seen = unicodedata.normalize("NFKC", text.translate(TAGS)).translate(CAPITALS).casefold().translate(LOOKALIKES)
    return " ".join(WORD.findall(HIDDEN.sub("", unicodedata.normalize("NFKD", seen))))


def fold(text: str) -> str:
    """The same, `w h e n` as `when`."""
    return SPELLED.sub(lambda letters: letters[0].replace(" ", ""), plain(text))
