"""Request bodies to checked shots, with errors that name the field and the limit and repeat nothing that was sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jiter
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from qwen_shots.errors import InvalidInput, InvalidShot
from qwen_shots.schemas import AudioFeatures, Shot, ShotId

KNOWN_FIELDS = frozenset({*Shot.model_fields, *AudioFeatures.model_fields})
MAX_ERRORS_TOLD = 5
SHOT_ID: TypeAdapter[int | str] = TypeAdapter(ShotId, config={"strict": True})

# pydantic's kinds of mistake that would otherwise tell of Python's types.
WORDS = {
    "missing": "is missing",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "int_type": "must be an integer",
    "string_type": "must be text",
    "list_type": "must be a list",
    "model_type": "must be an object",
    "dict_type": "must be an object",
}


def parse_json(body: bytes) -> Any:
    """Decode a JSON body.

    Raises:
        InvalidInput: it is not JSON, or a name stands twice in an object.
    """
    try:
        # NaN is let through here: the fields' own checks name the one that is not finite.
        return jiter.from_json(body, allow_inf_nan=True, catch_duplicate_keys=True, cache_mode="none")
    except ValueError as error:
        if str(error).startswith("Detected duplicate key"):
            raise InvalidInput("an object in the body holds the same name twice") from None
        raise InvalidInput("the body is not valid JSON") from None


def parse_shot(value: Any) -> Shot:
    """Check one shot.

    Raises:
        InvalidShot: with every wrong field, up to 5 of them.
    """
    try:
        return Shot.model_validate(value)
    except ValidationError as error:
        raise InvalidShot(explain(error.errors(include_url=False, include_input=False))) from None


def parse_batch(body: Any, max_shots: int) -> list[Any]:
    """The shots of a batch, each still unchecked.

    Raises:
        InvalidInput: not `{"shots": [...]}`, none or too many of them, or two of one name.
    """
    if not isinstance(body, dict) or set(body) != {"shots"} or not isinstance(body["shots"], list):
        raise InvalidInput('the body must be {"shots": [...]} and nothing else')
    shots: list[Any] = body["shots"]
    if not 1 <= len(shots) <= max_shots:
        raise InvalidInput(
            f"shots: {len(shots)} were sent; 1 to {max_shots} are allowed in one request (processing.max_batch_size)"
        )
    _refuse_twins(shots)
    return shots


def shot_id_of(value: Any) -> int | str | None:
    """The name of a shot that may be broken otherwise; None where it has none that could be served."""
    try:
        return SHOT_ID.validate_python(value.get("shot_id") if isinstance(value, dict) else None)
    except ValidationError:
        return None


def _refuse_twins(shots: Sequence[Any]) -> None:
    first: dict[int | str, int] = {}
    for index, shot in enumerate(shots):
        name = shot_id_of(shot)
        if name is None:
            continue
        if name in first:
            raise InvalidInput(f"shots[{index}].shot_id: the same as shots[{first[name]}]'s; each must be its own")
        first[name] = index


def explain(mistakes: Sequence[ErrorDetails]) -> str:
    """Mistakes as one sentence each: `images: must have 1 to 10 items`."""
    told: dict[str, dict[str, None]] = {}  # the inner one for its order; a union tells of each of its branches
    for mistake in mistakes:
        told.setdefault(_field(mistake["loc"]), {})[_words(mistake)] = None
    sentences = [f"{field}: {' or '.join(words)}" for field, words in told.items()]
    if len(sentences) > MAX_ERRORS_TOLD:
        sentences[MAX_ERRORS_TOLD:] = [f"and {len(sentences) - MAX_ERRORS_TOLD} more"]
    return "; ".join(sentences)


def _field(loc: Sequence[int | str]) -> str:
    # A union's branches stand in the path by their type's name; an unknown field's own name is the sender's text.
    parts = [part for part in loc if part in KNOWN_FIELDS or isinstance(part, int)]
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
    return text or "shot"


def _words(mistake: ErrorDetails) -> str:
    kind: str = mistake["type"]
    limits: Mapping[str, Any] = mistake.get("ctx", {})
    if kind in {"too_short", "too_long"}:
        few = kind == "too_short"
        bound = f"at least {limits['min_length']} needed" if few else f"at most {limits['max_length']} are allowed"
        return f"has {limits['actual_length']} items; {bound}"
    if kind == "extra_forbidden":
        if "audio_features" in mistake["loc"]:
            return f"holds an unknown field; known are {', '.join(AudioFeatures.model_fields)}"
        return f"holds an unknown field; known are {', '.join(Shot.model_fields)}"
    message = mistake["msg"].removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")
    message = message.replace("should ", "must ")
    return WORDS.get(kind, message)
