"""A caption as one line that any format can hold."""

from __future__ import annotations

import unicodedata

UNWANTED = frozenset({"Cc", "Cs", "Cn", "Zl", "Zp"})
# They turn the direction of what follows (Unicode UAX 9), so that a line can look like another one.
TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def one_line(text: str) -> str:
    """Line breaks become blanks; control characters and what is no character at all (XML refuses both) go.

    So neither a terminal nor a table is steered by words that came from a film or a server.
    """
    return "".join(
        sign for sign in " ".join(text.split()) if unicodedata.category(sign) not in UNWANTED and sign not in TURNS
    )
