"""Every mistake in a body is named with its field and the limit, and nothing that was sent comes back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_shots.errors import InvalidInput, InvalidShot
from qwen_shots.schemas import EXAMPLE_AUDIO, MAX_INTEGER_ID, BatchError
from serving.wire import parse_batch, parse_json, parse_shot, shot_id_of

SENT = "SECRET"
GOOD: Mapping[str, Any] = {
    "shot_id": 1,
    "images": ["aGVsbG8="],
    "audio_features": EXAMPLE_AUDIO,
    "start_time": 10.5,
    "end_time": 12.8,
    "duration": 2.3,
}

NUMBERS = ("start_time", "end_time", "duration")
SHARES = ("zero_crossing_rate_mean", "rms_energy_mean", "rms_energy_std")
AMOUNTS = (
    "spectral_centroid_mean", "spectral_centroid_std", "spectral_rolloff_mean", "spectral_bandwidth_mean", "tempo",
    "duration",
)  # fmt: skip
LISTS = {"mfcc_mean": 13, "mfcc_std": 13, "chroma_mean": 12}

secrets = st.text(max_size=20).map(lambda text: SENT + text)
not_numbers = st.one_of(secrets, st.booleans(), st.lists(secrets), st.dictionaries(secrets, secrets, max_size=3))
negative = st.floats(max_value=0, exclude_max=True, allow_infinity=False).map(lambda number: min(number, -1e-300))
endless = st.sampled_from([math.nan, math.inf, -math.inf])
above_one = st.floats(min_value=1, exclude_min=True, allow_infinity=False)


def told(body: Any) -> str:
    """What the client is told of a bad shot, after the way over the wire."""
    with pytest.raises(InvalidShot) as caught:
        parse_shot(parse_json(json.dumps(body).encode()))
    assert SENT not in caught.value.detail
    return caught.value.detail


def with_audio(**changes: Any) -> dict[str, Any]:
    return {**GOOD, "audio_features": EXAMPLE_AUDIO | changes}


def with_number(field: str, value: Any) -> dict[str, Any]:
    """A shot with a value where a number belongs: `duration`, `audio_features.tempo`, `audio_features.mfcc_std[3]`."""
    outer, _, inner = field.rpartition(".")
    if not outer:
        return {**GOOD, field: value}
    name, _, at = inner.rstrip("]").partition("[")
    if not at:
        return with_audio(**{name: value})
    return with_audio(**{name: [value if index == int(at) else 0.5 for index in range(LISTS[name])]})


places = st.sampled_from(
    [
        *NUMBERS,
        *(f"audio_features.{name}" for name in SHARES + AMOUNTS),
        *(f"audio_features.{name}[{at}]" for name, size in LISTS.items() for at in range(size)),
    ]
)


def test_the_good_shot_is_good() -> None:
    assert parse_shot(parse_json(json.dumps(GOOD).encode())).shot_id == 1


@given(field=places, value=not_numbers)
def test_not_a_number(field: str, value: Any) -> None:
    assert told(with_number(field, value)) == f"{field}: must be a number"


@given(field=places, value=endless)
def test_not_finite(field: str, value: float) -> None:
    assert told(with_number(field, value)) == f"{field}: must be a finite number"


@given(field=places, value=negative)
def test_negative(field: str, value: float) -> None:
    if "mfcc_mean" in field:  # the one that may be negative
        assert parse_shot(with_number(field, value))
    else:
        assert told(with_number(field, value)) == f"{field}: must be greater than or equal to 0"


@given(name=st.sampled_from(SHARES), value=above_one)
def test_a_share_above_1(name: str, value: float) -> None:
    assert told(with_audio(**{name: value})) == f"audio_features.{name}: must be less than or equal to 1"


@given(name=st.sampled_from(list(LISTS)), count=st.integers(0, 40))
def test_lists_of_another_length(name: str, count: int) -> None:
    body = with_audio(**{name: [0.5] * count})
    if count == LISTS[name]:
        assert parse_shot(body)
    else:
        bound = f"at least {LISTS[name]} needed" if count < LISTS[name] else f"at most {LISTS[name]} are allowed"
        assert told(body) == f"audio_features.{name}: has {count} items; {bound}"


@given(
    field=st.sampled_from(["images", *(f"audio_features.{name}" for name in LISTS)]),
    value=st.one_of(secrets, st.integers(), st.booleans(), st.dictionaries(secrets, secrets, max_size=3)),
)
def test_not_a_list(field: str, value: Any) -> None:
    inner = field.removeprefix("audio_features.")
    body = with_audio(**{inner: value}) if inner != field else {**GOOD, field: value}
    assert told(body) == f"{field}: must be a list"


@given(value=st.one_of(secrets, st.integers(), st.booleans(), st.lists(secrets)))
def test_not_an_object(value: Any) -> None:
    assert told(value) == "shot: must be an object"
    assert told({**GOOD, "audio_features": value}) == "audio_features: must be an object"


@given(count=st.integers(11, 60))
def test_too_many_images(count: int) -> None:
    assert told({**GOOD, "images": [SENT] * count}) == f"images: has {count} items; at most 10 are allowed"


@given(at=st.integers(0, 9), value=st.one_of(st.none(), st.integers(), st.booleans(), st.lists(secrets)))
def test_an_image_that_is_not_text(at: int, value: Any) -> None:
    images: list[Any] = [SENT] * 10
    images[at] = value
    assert told({**GOOD, "images": images}) == f"images[{at}]: must be text"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "must be an integer or must be text"),
        (True, "must be an integer or must be text"),
        (1.5, "must be an integer or must be text"),
        ([SENT], "must be an integer or must be text"),
        ("", "must have at least 1 character"),
        (SENT * 100, "must have at most 256 characters"),
        (MAX_INTEGER_ID + 1, f"must be less than or equal to {MAX_INTEGER_ID}"),
        (-MAX_INTEGER_ID - 1, f"must be greater than or equal to -{MAX_INTEGER_ID}"),
    ],
)
def test_a_bad_name(value: Any, words: str) -> None:
    detail = told({**GOOD, "shot_id": value})
    assert detail.startswith("shot_id: ")
    assert words in detail


@pytest.mark.parametrize("field", [name for name in GOOD if name != "audio_features"])
def test_a_field_that_is_missing_or_null(field: str) -> None:
    assert told({name: value for name, value in GOOD.items() if name != field}) == f"{field}: is missing"
    assert told({**GOOD, field: None}).startswith(f"{field}: must be")


@given(name=secrets)
def test_an_unknown_field_lists_the_known_ones(name: str) -> None:
    assert told({**GOOD, name: SENT}).startswith("shot: holds an unknown field; known are shot_id, images,")
    assert told(with_audio(**{name: SENT})).startswith(
        "audio_features: holds an unknown field; known are mfcc_mean, mfcc_std,"
    )


@given(names=st.lists(st.integers().map(str), min_size=2, max_size=30, unique=True))
def test_many_unknown_fields_are_counted_and_none_is_named(names: list[str]) -> None:
    unknown = dict.fromkeys(names, SENT)
    many = f"holds {len(names)} unknown fields, the first is number"
    assert told({**GOOD, **unknown}).startswith(f"shot: {many} 7; known are shot_id, images,")
    assert told(with_audio(**unknown)).startswith(f"audio_features: {many} 13; known are mfcc_mean,")


def test_an_unknown_field_hides_no_other_mistake() -> None:
    detail = told({**with_audio(**{SENT: 1}), SENT: 1, "duration": None})
    assert detail.count("holds an unknown field") == 2
    assert detail.endswith("; duration: must be a number")


@given(start=st.floats(0, 1e6), before=st.floats(1e-3, 1e6))
def test_the_end_before_the_start(start: float, before: float) -> None:
    if before <= start:
        assert told({**GOOD, "start_time": start, "end_time": start - before}) == (
            "shot: end_time must not be before start_time"
        )


@pytest.mark.parametrize("count", [1, 5, 6, 13])
def test_at_most_five_mistakes_are_told(count: int) -> None:
    bad: list[Any] = [SENT] * count + [0.0] * (13 - count)
    sentences = told(with_audio(mfcc_mean=bad)).split("; ")
    assert sentences[:5] == [f"audio_features.mfcc_mean[{at}]: must be a number" for at in range(min(count, 5))]
    assert sentences[5:] == ([f"and {count - 5} more"] if count > 5 else [])


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | secrets,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(sorted(GOOD)) | secrets, inner),
    max_leaves=12,
)


@given(body=anything)
def test_no_body_is_an_unforeseen_error(body: Any) -> None:
    body = parse_json(json.dumps(body).encode())
    for parse in (parse_shot, lambda value: parse_batch(value, 10)):
        with pytest.raises(InvalidInput) as caught:
            parse(body)
        assert SENT not in caught.value.detail
    shot_id_of(body)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"\xff\xfe", b'{"a": "\\ud800"}', b"{'shot_id': 1}", b'{"shot_id": 1} SECRET',
        b'{"shot_id": ' + b"1" * 5000 + b"}",
    ],
    ids=["empty", "cut", "not utf-8", "half a surrogate", "quotes", "more behind", "an endless integer"],
)  # fmt: skip
def test_not_json(body: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_json(body)
    assert caught.value.detail == "the body is not valid JSON"


@pytest.mark.parametrize("name", [1, "1", 0, -5, MAX_INTEGER_ID, "x" * 256, "Szene 1 / größer 🎬", " "])
def test_a_name_comes_back_as_it_was_sent(name: int | str) -> None:
    served = parse_shot(parse_json(json.dumps({**GOOD, "shot_id": name}).encode())).shot_id
    assert served == name
    assert type(served) is type(name)
    assert shot_id_of({"shot_id": name}) == name


odd_names = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.text(min_size=257),
    st.lists(secrets),
)


@given(value=odd_names)
def test_the_name_of_a_broken_shot_can_be_served(value: Any) -> None:
    # One bad shot must not cost the others, so its row must be one that the wire lets out.
    name = shot_id_of({"shot_id": value})
    row = BatchError(index=0, shot_id=name, type="t", title="t", detail="d")
    assert row.shot_id is None or row.shot_id == value
    assert shot_id_of(value) is None


@pytest.mark.parametrize(
    "body",
    [None, [], "shots", {}, {"shot": []}, {"shots": None}, {"shots": {}}, {"shots": [GOOD], SENT: 1}, [GOOD]],
    ids=str,
)
def test_a_batch_of_another_shape(body: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_batch(body, 10)
    assert caught.value.detail == 'the body must be {"shots": [...]} and nothing else'


@given(count=st.integers(0, 40), limit=st.integers(1, 30))
def test_the_size_of_a_batch(count: int, limit: int) -> None:
    body = {"shots": [{**GOOD, "shot_id": number} for number in range(count)]}
    if 1 <= count <= limit:
        assert parse_batch(body, limit) == body["shots"]
    else:
        with pytest.raises(InvalidInput, match=f"^shots: {count} were sent; 1 to {limit} are allowed"):
            parse_batch(body, limit)


@given(names=st.lists(st.integers(0, 5) | st.sampled_from("012345"), min_size=1, max_size=10))
def test_twins_are_refused_with_both_places(names: list[int | str]) -> None:
    body = {"shots": [{**GOOD, "shot_id": name} for name in names]}
    second = next((at for at, name in enumerate(names) if name in names[:at]), None)
    if second is None:
        assert len(parse_batch(body, 10)) == len(names)  # the integer 1 and the text "1" are two names
    else:
        with pytest.raises(InvalidInput) as caught:
            parse_batch(body, 10)
        first = names.index(names[second])
        assert caught.value.detail.startswith(f"shots[{second}].shot_id: the same as shots[{first}]'s")


def test_broken_shots_are_left_to_the_check_of_each() -> None:
    shots: list[Any] = [None, 5, {}, {"shot_id": None}, {"shot_id": None}, {"shot_id": ""}, {"shot_id": ""}]
    assert parse_batch({"shots": shots}, 10) == shots
