"""Questions that need two facts, from tables of common knowledge; each family has one template.

The second fact of a chained family is asked of the answer to the first; the facts of the other
families are looked up apart and then joined.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, product
from typing import TypeAlias

from waypost.contracts.questions import Question

CHAINED, JOINED = "two_facts_chained", "two_facts_joined"
"""Task names of the questions."""

MAX_PER_FAMILY = 8
"""Most questions of a family; the smallest has as many."""

Case: TypeAlias = tuple[dict[str, str], str | list[str]]
"""Values of a template's fields, and the accepted answers."""

# -- facts ----------------------------------------------------------------------------------------

CAPITALS = {
    "Argentina": "Buenos Aires", "Australia": "Canberra", "Austria": "Vienna", "Brazil": "Brasilia",
    "Cambodia": "Phnom Penh", "Canada": "Ottawa", "China": "Beijing",
    "Colombia": "Bogota", "Czech Republic": "Prague", "Denmark": "Copenhagen", "Egypt": "Cairo",
    "England": "London", "France": "Paris", "Germany": "Berlin", "Greece": "Athens",
    "Hungary": "Budapest", "India": "New Delhi", "Ireland": "Dublin", "Italy": "Rome",
    "Japan": "Tokyo", "Jordan": "Amman", "Kenya": "Nairobi", "Malaysia": "Kuala Lumpur",
    "Mexico": "Mexico City", "Nigeria": "Abuja", "Norway": "Oslo", "Peru": "Lima",
    "Poland": "Warsaw", "Portugal": "Lisbon", "Russia": "Moscow", "South Korea": "Seoul",
    "Spain": "Madrid", "Sweden": "Stockholm", "Switzerland": "Bern", "Thailand": "Bangkok",
    "Turkey": "Ankara", "Ukraine": "Kyiv", "United States": "Washington", "Vietnam": "Hanoi",
}  # fmt: skip
ALSO = {
    "England": ["United Kingdom", "UK", "Great Britain", "Britain"],
    "Kyiv": ["Kiev"],
    "New Delhi": ["Delhi"],
    "United States": ["USA", "US", "America"],
}
CURRENCIES = {
    "Brazil": "real", "China": "yuan renminbi", "Czech Republic": "koruna crown",
    "Denmark": "krone kroner crown", "Egypt": "pound", "England": "pound sterling",
    "Hungary": "forint", "India": "rupee", "Japan": "yen", "Kenya": "shilling",
    "Malaysia": "ringgit", "Mexico": "peso", "Nigeria": "naira", "Norway": "krone kroner crown",
    "Peru": "sol", "Poland": "zloty", "Russia": "ruble rouble", "South Korea": "won",
    "Sweden": "krona kronor crown", "Switzerland": "franc", "Thailand": "baht", "Turkey": "lira",
    "Ukraine": "hryvnia", "Vietnam": "dong",
}  # fmt: skip
LANDMARKS = {
    "Angkor Wat": "Cambodia", "Chichen Itza": "Mexico", "Machu Picchu": "Peru",
    "Mont-Saint-Michel": "France", "Neuschwanstein Castle": "Germany", "Petra": "Jordan",
    "Stonehenge": "England", "the Alhambra": "Spain", "the Great Barrier Reef": "Australia",
    "the Hagia Sophia": "Turkey", "the Leaning Tower of Pisa": "Italy",
    "the statue of Christ the Redeemer": "Brazil", "the Statue of Liberty": "United States",
    "the Taj Mahal": "India", "the Terracotta Army": "China",
}  # fmt: skip
WORKS = {
    "A Doll's House": "Norway", "Crime and Punishment": "Russia", "Don Quixote": "Spain",
    "Hamlet": "England", "Heidi": "Switzerland", "Les Miserables": "France",
    "Moby-Dick": "United States", "One Hundred Years of Solitude": "Colombia",
    "Pippi Longstocking": "Sweden", "Pride and Prejudice": "England",
    "The Adventures of Tom Sawyer": "United States", "The Divine Comedy": "Italy",
    "The Little Mermaid": "Denmark", "The Little Prince": "France",
    "Things Fall Apart": "Nigeria", "Ulysses": "Ireland", "War and Peace": "Russia",
}  # fmt: skip
ELEMENTS = {
    "hydrogen": ("H", 1), "helium": ("He", 2), "lithium": ("Li", 3), "carbon": ("C", 6),
    "nitrogen": ("N", 7), "oxygen": ("O", 8), "fluorine": ("F", 9), "neon": ("Ne", 10),
    "sodium": ("Na", 11), "magnesium": ("Mg", 12), "aluminium": ("Al", 13), "silicon": ("Si", 14),
    "phosphorus": ("P", 15), "sulfur": ("S", 16), "chlorine": ("Cl", 17), "argon": ("Ar", 18),
    "potassium": ("K", 19), "calcium": ("Ca", 20), "iron": ("Fe", 26), "copper": ("Cu", 29),
    "zinc": ("Zn", 30), "silver": ("Ag", 47), "tin": ("Sn", 50), "gold": ("Au", 79),
    "mercury": ("Hg", 80), "lead": ("Pb", 82),
}  # fmt: skip
PLANETS = ("Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
SIDES = {
    "triangle": 3, "square": 4, "pentagon": 5, "hexagon": 6, "heptagon": 7, "octagon": 8,
    "nonagon": 9, "decagon": 10, "dodecagon": 12,
}  # fmt: skip
MONTHS = {
    "January": 31, "February": 28, "March": 31, "April": 30, "May": 31, "June": 30, "July": 31,
    "August": 31, "September": 30, "October": 31, "November": 30, "December": 31,
}  # fmt: skip
HOLIDAYS = {
    "New Year's Day": "January", "Valentine's Day": "February", "Saint Patrick's Day": "March",
    "April Fools' Day": "April", "the Independence Day of the United States": "July",
    "Bastille Day": "July", "Halloween": "October", "Guy Fawkes Night": "November",
    "Thanksgiving Day of the United States": "November", "Christmas Day": "December",
}  # fmt: skip
LEGS = {
    "ants": 6, "bees": 6, "cats": 4, "chickens": 2, "cows": 4, "crabs": 10, "ducks": 2,
    "horses": 4, "ostriches": 2, "scorpions": 8, "snakes": 0, "spiders": 8,
}  # fmt: skip
GROWN_UP_LEGS = {
    "calf": 4, "caterpillar": 6, "chick": 2, "cygnet": 2, "duckling": 2, "fawn": 4, "foal": 4,
    "gosling": 2, "kitten": 4, "lamb": 4, "maggot": 6, "tadpole": 4,
}  # fmt: skip
COUNTS = {
    "cards of a full deck without jokers": 52, "continents of the Earth": 7, "days in a week": 7,
    "hours in a day": 24, "keys of a full piano": 88, "legs of a spider": 8,
    "letters of the English alphabet": 26, "minutes in an hour": 60, "months in a year": 12,
    "planets of the Solar System": 8, "players of a soccer team on the field": 11,
    "sides of a hexagon": 6, "squares of a chessboard": 64, "strings of a violin": 4,
}  # fmt: skip
COLOURS = {
    "a ripe banana": "yellow", "a lemon": "yellow", "an egg yolk": "yellow",
    "a clear sky at noon": "blue", "a sapphire": "blue", "a ripe tomato": "red", "a ruby": "red",
    "blood": "red", "fresh snow": "white", "milk": "white", "coal": "black",
}  # fmt: skip
MIXED = {
    frozenset({"yellow", "blue"}): ["green"],
    frozenset({"red", "yellow"}): ["orange"],
    frozenset({"red", "blue"}): ["purple", "violet"],
    frozenset({"red", "white"}): ["pink"],
    frozenset({"black", "white"}): ["grey", "gray"],
}

# -- families -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Family:
    """Questions of one template.

    Attributes:
        name: Unique name.
        chained: Whether the second fact is asked of the answer to the first.
        template: The question, with fields in braces.
        cases: Yields every case.
        metric: Name of the scorer.
    """

    name: str
    chained: bool
    template: str
    cases: Callable[[], Iterator[Case]]
    metric: str = "number"

    @property
    def pattern(self) -> re.Pattern[str]:
        """Matches every question of the template, whatever its fields hold."""
        parts = [re.escape(text) for text, *_ in string.Formatter().parse(self.template)]
        return re.compile(".+".join(parts))


def _named(answer: str) -> list[str]:
    return [answer, *ALSO.get(answer, ())]


def _currencies() -> Iterator[Case]:
    for country, words in CURRENCIES.items():
        accepted = [form for word in words.split() for form in (word, f"{word}s")]
        yield {"capital": CAPITALS[country]}, accepted


def _capital_letters() -> Iterator[Case]:
    for country, capital in CAPITALS.items():
        if " " not in capital and country not in ("Ukraine", "United States"):
            yield {"country": country}, str(len(capital))


def _roman(number: int) -> str:
    written = ""
    for value, letters in ((50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV")):
        written += letters * (number // value)
        number %= value
    return written + "I" * number


def _legs() -> Iterator[Case]:
    for (one, legs), (other, more) in combinations(LEGS.items(), 2):
        for n, m in product(range(2, 6), repeat=2):
            yield {"n": str(n), "one": one, "m": str(m), "other": other}, str(n * legs + m * more)


def _after_holidays() -> Iterator[Case]:
    months = list(MONTHS)
    for holiday, month in HOLIDAYS.items():
        yield {"holiday": holiday}, [months[(months.index(month) + 1) % 12]]


def _mixes() -> Iterator[Case]:
    for (one, first), (other, second) in combinations(COLOURS.items(), 2):
        if (mixed := MIXED.get(frozenset({first, second}))) is not None:
            yield {"one": one, "other": other}, mixed


def _sums(counts: dict[str, int]) -> Iterator[Case]:
    for (one, first), (other, second) in combinations(counts.items(), 2):
        yield {"one": one, "other": other}, str(first + second)


FAMILIES = (
    Family(
        "currency_of_capital", True,
        "What currency is used in the country whose capital is {capital}? Give only its name.",
        _currencies, "short_answer",
    ),
    Family(
        "capital_of_landmark", True,
        "What is the capital of the country in which {landmark} stands? Give only its name.",
        lambda: (({"landmark": k}, _named(CAPITALS[v])) for k, v in LANDMARKS.items()),
        "short_answer",
    ),
    Family(
        "country_of_author", True,
        "In which country was the author of {work} born? Give only the country.",
        lambda: (({"work": k}, _named(v)) for k, v in WORKS.items()), "short_answer",
    ),
    Family(
        "number_of_symbol", True,
        "What is the atomic number of the element with the chemical symbol {symbol}? "
        "Give only the number.",
        lambda: (({"symbol": symbol}, str(number)) for symbol, number in ELEMENTS.values()),
    ),
    Family(
        "letters_of_capital", True,
        "How many letters does the name of the capital of {country} have? Give only the number.",
        _capital_letters,
    ),
    Family(
        "initial_of_planet", True,
        "With which letter does the name of the {ordinal} planet from the Sun begin? "
        "Give only the letter.",
        lambda: (({"ordinal": k}, [v[0]]) for k, v in zip(ORDINALS, PLANETS, strict=True)),
        "short_answer",
    ),
    Family(
        "sides_times", True,
        "Multiply the number of sides of {article} {polygon} by {n}. What is the product? "
        "Give only the number.",
        lambda: (
            ({"article": "an" if k == "octagon" else "a", "polygon": k, "n": str(n)}, str(v * n))
            for (k, v), n in product(SIDES.items(), range(3, 10))
        ),
    ),
    Family(
        "roman_count", True,
        "Write the number of {things} as a Roman numeral. Give only the numeral.",
        lambda: (({"things": k}, [_roman(v)]) for k, v in COUNTS.items()), "short_answer",
    ),
    Family(
        "month_after_holiday", True,
        "Which month comes after the month in which {holiday} falls? Give only its name.",
        _after_holidays, "short_answer",
    ),
    Family(
        "grown_up_legs", True,
        "How many legs does a {young} have once it is a grown-up animal? Give only the number.",
        lambda: (({"young": k}, str(v)) for k, v in GROWN_UP_LEGS.items()),
    ),
    Family(
        "legs_together", False,
        "How many legs do {n} {one} and {m} {other} have together? Give only the number.",
        _legs,
    ),
    Family(
        "corners_together", False,
        "How many corners do one {one} and one {other} have together? Give only the number.",
        lambda: _sums(SIDES),
    ),
    Family(
        "atomic_sum", False,
        "What is the sum of the atomic numbers of {one} and {other}? Give only the number.",
        lambda: _sums({k: number for k, (_, number) in ELEMENTS.items() if number <= 20}),
    ),
    Family(
        "days_together", False,
        "How many days do {one} and {other} have together in a year that is not a leap year? "
        "Give only the number.",
        lambda: _sums(MONTHS),
    ),
    Family(
        "mixed_colours", False,
        "Which colour do you get when you mix paint in the colour of {one} with paint in the "
        "colour of {other}? Give only the colour.",
        _mixes, "short_answer",
    ),
)  # fmt: skip
"""At least half of the families are chained. No template is one of a planner's examples."""


def two_facts(per_family: int, seed: int, max_tokens: int) -> list[Question]:
    """Draw questions, the same number of each family.

    Args:
        per_family: At most `MAX_PER_FAMILY`.
        seed: Seed of the draw. A smaller number of the same seed draws a part of the questions.
        max_tokens: Cap of an answer.
    """
    return [
        Question(
            query_id=f"{family.name}-{number}",
            task_name=CHAINED if family.chained else JOINED,
            query=family.template.format(**fields),
            ground_truth=accepted,
            metric=family.metric,
            max_tokens=max_tokens,
        )
        for family in FAMILIES
        for number, (fields, accepted) in enumerate(_drawn(family, seed)[:per_family], 1)
    ]


def _drawn(family: Family, seed: int) -> list[Case]:
    cases = list(family.cases())
    random.Random(f"{seed}/{family.name}").shuffle(cases)  # noqa: S311 - no secret
    return cases
