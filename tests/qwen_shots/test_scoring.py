"""A score is the expected value of the model's own answer."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_shots.errors import NotANumber, ShotFailed
from qwen_shots.scoring import Reading, check_mass, read_score, read_scores

UNSURE = [0.1] * 10

chance = st.floats(0, 1, allow_subnormal=False)
wholes = st.tuples(chance, chance).filter(lambda pair: sum(pair) > 1e-6)
tenths = st.lists(chance, min_size=10, max_size=10).filter(lambda values: sum(values) > 1e-6)


def only(digit: int) -> list[float]:
    return [float(d == digit) for d in range(10)]


def distribution(whole: tuple[float, float], digits: list[float]) -> dict[float, float]:
    """Every answer that can be written, with its chance, by the tree of tokens."""
    answers = {d / 10: whole[0] / sum(whole) * p / sum(digits) for d, p in enumerate(digits)}
    return answers | {1.0: whole[1] / sum(whole)}


@given(whole=wholes, digits=tenths)
def test_value_and_spread_are_those_of_the_distribution(whole: tuple[float, float], digits: list[float]) -> None:
    reading = read_score(whole, digits)
    answers = distribution(whole, digits)
    mean = math.fsum(score * p for score, p in answers.items())
    variance = math.fsum(score**2 * p for score, p in answers.items()) - mean**2
    assert reading.value == pytest.approx(mean, abs=1e-12)
    assert reading.spread**2 == pytest.approx(variance, abs=1e-12)
    assert 0 <= reading.value <= 1
    assert 0 <= reading.spread <= 0.5 + 1e-12
    assert answers[reading.mode] == pytest.approx(max(answers.values()), abs=1e-12)


def test_the_formula_by_hand() -> None:
    # P("1") + P("0") * sum of P(d | "0.") * d / 10 = 0.2 + 0.8 * (0.25 * 0.3 + 0.75 * 0.7)
    reading = read_score([0.8, 0.2], [0, 0, 0, 0.25, 0, 0, 0, 0.75, 0, 0])
    assert reading.value == pytest.approx(0.68)
    assert reading.mode == 0.7


@pytest.mark.parametrize("digit", range(10))
def test_a_sure_digit(digit: int) -> None:
    reading = read_score([1.0, 0.0], only(digit))
    assert (reading.value, reading.spread, reading.mass, reading.mode) == (digit / 10, 0, 1, digit / 10)


@pytest.mark.parametrize("digits", [UNSURE, only(0), only(9)])
def test_a_sure_one_whatever_the_digits(digits: list[float]) -> None:
    reading = read_score([0.0, 1.0], digits)
    assert (reading.value, reading.spread, reading.mode) == (1, 0, 1)


def test_the_widest_spread() -> None:
    assert read_score([0.5, 0.5], only(0)).spread == pytest.approx(0.5)


def test_no_opinion_is_the_mean_of_the_digits() -> None:
    assert read_score([1.0, 0.0], UNSURE).value == pytest.approx(0.45)


@given(whole=wholes, digits=tenths, other=st.floats(1e-3, 1))
def test_other_words_change_the_mass_and_nothing_else(
    whole: tuple[float, float], digits: list[float], other: float
) -> None:
    whole, digits = (whole[0] / sum(whole), whole[1] / sum(whole)), [p / sum(digits) for p in digits]
    sure = read_score(whole, digits)
    unsure = read_score([p * other for p in whole], [p * other for p in digits])
    assert sure.mass == pytest.approx(1)
    # "1" ends the answer; "0." still needs a digit.
    assert unsure.mass == pytest.approx(whole[1] * other + whole[0] * other * other)
    assert unsure.value == pytest.approx(sure.value)
    assert unsure.spread == pytest.approx(sure.spread, abs=1e-7)


@given(whole=wholes, digits=tenths, at=st.integers(0, 8), share=st.floats(0, 1))
def test_chance_moved_to_a_higher_digit_never_lowers(
    whole: tuple[float, float], digits: list[float], at: int, share: float
) -> None:
    moved = list(digits)
    moved[at], moved[at + 1] = digits[at] * (1 - share), digits[at + 1] + digits[at] * share
    assert read_score(whole, moved).value >= read_score(whole, digits).value - 1e-12


@given(questions=st.lists(st.tuples(wholes, tenths), min_size=1, max_size=7))
def test_many_questions_are_read_as_each_alone(questions: list[tuple[tuple[float, float], list[float]]]) -> None:
    together = read_scores(*map(list, zip(*questions, strict=True)))
    for reading, (whole, digits) in zip(together, questions, strict=True):
        alone = read_score(whole, digits)
        assert reading.value == pytest.approx(alone.value, abs=1e-12)
        assert reading.spread**2 == pytest.approx(alone.spread**2, abs=1e-12)
        assert (reading.mass, reading.mode) == pytest.approx((alone.mass, alone.mode))


def test_one_question_without_numbers_spoils_them_all() -> None:
    with pytest.raises(NotANumber):
        read_scores([[0.5, 0.5], [0.5, math.nan]], [UNSURE, UNSURE])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", range(12))
def test_nan_and_infinity_are_refused_wherever_they_stand(bad: float, place: int) -> None:
    values = [0.5, 0.5, *UNSURE]
    values[place] = bad
    with pytest.raises(NotANumber, match="bfloat16"):
        read_score(values[:2], values[2:])


@pytest.mark.parametrize(("whole", "digits"), [([0.0, 0.0], UNSURE), ([0.5, 0.5], [0.0] * 10)])
def test_without_any_chance_there_is_no_score(whole: list[float], digits: list[float]) -> None:
    with pytest.raises(ShotFailed, match="no probability"):
        read_score(whole, digits)


def with_mass(*masses: float) -> list[Reading]:
    return [Reading(value=0.5, spread=0.1, mass=mass, mode=0.5) for mass in masses]


@pytest.mark.parametrize("masses", [(0.1,), (0.0, 0.1, 0.2), (0.29, 0.02, 0.0)])
def test_enough_of_the_probability_is_on_numbers(masses: tuple[float, ...]) -> None:
    check_mass({"suspense": with_mass(1.0), "motion": with_mass(*masses)}, 0.1)


@pytest.mark.parametrize("masses", [(2.4e-6,), (0.0999,), (0.0, 0.1, 0.19)])
def test_too_little_of_the_probability_is_on_numbers(masses: tuple[float, ...]) -> None:
    with pytest.raises(NotANumber, match=r"for motion on numbers, at least 0\.1 is required \(processing\.least_mass"):
        check_mass({"suspense": with_mass(1.0), "motion": with_mass(*masses)}, 0.1)
    check_mass({"motion": with_mass(*masses)}, 0)
