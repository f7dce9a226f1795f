"""A caption as one line that any format can hold."""

from __future__ import annotations

import unicodedata

UNWANTED = frozenset({"Cc", "Cs", "Cn", "Zl", "Zp"})


def one_line(text: str) -> str:
    """Line breaks become blanks; control characters and what is no character at all (XML refuses both) go."""
    return "".join(sign for sign in " ".join(text.split()) if unicodedata.category(sign) not in UNWANTED)
