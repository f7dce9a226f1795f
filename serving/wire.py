"""Request bodies to checked shots, with errors that name the field and the limit and repeat nothing that was sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from qwen_shots.errors import InvalidInput, InvalidShot
from qwen_shots.schemas import AudioFeatures, Shot, ShotId
from serving.json_body import JsonReader, too_many_shots

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


def parse_json(body: bytes, max_shots: int = 10) -> Any:
    """Decode a JSON body that is there as a whole; see `JsonReader`. It may hold as many shots as by default.

    Raises:
        InvalidInput: it is not JSON, exceeds a limit, or an object in it holds a name twice.
    """
    reader = JsonReader(max_shots, is_batch=False)
    reader.feed(body)
    return reader.finish()


def parse_shot(value: Any) -> Shot:
    """Check one shot.

    Raises:
        InvalidShot: with every wrong field, up to 5 of them.
    """
    value, unknown = _without_unknown(value)
    mistakes: list[ErrorDetails] = []
    try:
        shot = Shot.model_validate(value)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_input=False)
    if mistakes or unknown:
        raise InvalidShot(explain(mistakes, unknown))
    return shot


def parse_batch(body: Any, max_shots: int) -> list[Any]:
    """The shots of a batch, each still unchecked.

    Raises:
        InvalidInput: not `{"shots": [...]}`, none or too many of them, or two of one name.
    """
    if not isinstance(body, dict) or set(body) != {"shots"} or not isinstance(body["shots"], list):
        raise InvalidInput('the body must be {"shots": [...]} and nothing else')
    shots: list[Any] = body["shots"]
    if not 1 <= len(shots) <= max_shots:
        raise InvalidInput(too_many_shots(str(len(shots)), max_shots))
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


def _without_unknown(shot: Any) -> tuple[Any, list[str]]:
    """A shot with its known fields only, and a sentence on the others where there are any.

    Before pydantic sees them: it makes an error of each unknown field.
    """
    if not isinstance(shot, dict):
        return shot, []
    known, sentences = _known_fields(shot, Shot, "shot")
    sound = known.get("audio_features")
    if isinstance(sound, dict):
        known["audio_features"], more = _known_fields(sound, AudioFeatures, "audio_features")
        sentences += more
    return known, sentences


def _known_fields(sent: Mapping[str, Any], model: type[BaseModel], name: str) -> tuple[dict[str, Any], list[str]]:
    fields = model.model_fields
    unknown = [place for place, field in enumerate(sent, 1) if field not in fields]
    if not unknown:
        return dict(sent), []
    # By its place: its name is the sender's text.
    many = f"{len(unknown)} unknown fields, the first is number {unknown[0]}"
    told = f"{name}: holds {'an unknown field' if len(unknown) == 1 else many}; known are {', '.join(fields)}"
    return {field: value for field, value in sent.items() if field in fields}, [told]


def explain(mistakes: Sequence[ErrorDetails], sentences: Sequence[str] = ()) -> str:
    """Mistakes as one sentence each, behind those that are there already: `images: must have 1 to 10 items`."""
    told: dict[str, dict[str, None]] = {}  # the inner one for its order; a union tells of each of its branches
    for mistake in mistakes:
        told.setdefault(_field(mistake["loc"]), {})[_words(mistake)] = None
    sentences = [*sentences, *(f"{field}: {' or '.join(words)}" for field, words in told.items())]
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
    message = mistake["msg"].removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")
    message = message.replace("should ", "must ")
    return WORDS.get(kind, message)
