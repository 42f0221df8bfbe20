"""A generated register of people: realistic in shape, nobody's data, the same for one seed.

Used by the demonstration and the benchmarks. Names and places are common words; tokens stand for
what an identity registrar would compute with its own secret key over a person's number.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from blake3 import blake3

REGIONS = ("north", "east", "south", "west")
_TOWNS = {
    "north": ("Aldermoor", "Brinkholm", "Castle Fen", "Dunhaven"),
    "east": ("Eastmere", "Fallowfield", "Greenwick", "Harrow Quay"),
    "south": ("Ivybridge", "Juniper Hill", "Kestrel Bay", "Larkspur"),
    "west": ("Millbrook", "Newgate", "Oakhampton", "Pinefold"),
}
_GIVEN = (
    "Ada Adam Aisha Alma Amir Ana Andrei Anita Anton Asha Ben Bilal Carla Chen Clara Daniel "
    "Dara David Dina Eli Elena Emil Emma Eva Farah Felix Fiona Gabriel Hana Hugo Ida Imran Ines "
    "Irina Ivan Jana Joel Julia Kamal Karin Kenji Lara Leila Leo Lena Lina Luis Maja Marco "
    "Maria Mateo Mila Mina Nadia Naomi Nils Noah Nora Olga Omar Oscar Paula Petra Priya Rafael "
    "Rosa Samir Sara Selma Sofia Stefan Tara Tomas Vera Viktor Yara Yusuf Zoe"
).split()
_FAMILY = (
    "Abbas Adler Ahmed Almeida Andersson Arslan Baker Becker Bianchi Brandt Castro Chen Cohen "
    "Costa Demir Diaz Dubois Eriksen Fischer Fonseca Garcia Gruber Haddad Hansen Hassan Horvat "
    "Hughes Ibrahim Ivanov Jansen Jovanovic Kaya Keller Khan Kim Klein Kovac Kowalski Larsen "
    "Lopez Marin Martin Meyer Mohamed Moreau Murphy Nakamura Nguyen Novak Nowak Okafor Olsen "
    "Patel Pereira Petrov Popescu Ramos Rossi Ruiz Sahin Santos Schmidt Silva Singh Smith Sousa "
    "Svensson Takahashi Tanaka Torres Vargas Vogel Wagner Walker Weber Wilson Yilmaz Young "
    "Zhang"
).split()
_STREETS = (
    "Station Road",
    "Mill Lane",
    "Church Street",
    "Harbour Walk",
    "Garden Row",
    "Market Square",
    "School Lane",
    "River Street",
    "Orchard Way",
    "Park Avenue",
)


@dataclass(frozen=True, slots=True)
class Person:
    """One entry. ``token`` is the registrar's keyed hash, 32 bytes; the rest is open text."""

    token: bytes
    given_name: str
    family_name: str
    street: str
    town: str
    region: str


@dataclass(frozen=True, slots=True)
class Household:
    """A caregiver and a child, who is entitled; ``monthly`` in minor units."""

    caregiver: Person
    child: Person
    monthly: int


def people(count: int, seed: int = 1) -> list[Person]:
    """Return ``count`` people, in a fixed order for one ``seed``."""
    return list(_people(count, random.Random(seed)))


def households(register: list[Person], count: int, seed: int = 2) -> list[Household]:
    """Pair the first ``2 * count`` people of ``register`` into caregivers and children."""
    draw = random.Random(seed)
    rates = (15_000, 20_000, 25_000)
    return [
        Household(register[2 * index], register[2 * index + 1], draw.choice(rates))
        for index in range(count)
    ]


def _people(count: int, draw: random.Random) -> Iterator[Person]:
    secret = blake3(b"demonstration registrar").digest()
    for number in range(count):
        region = REGIONS[number // 2 % len(REGIONS)]
        yield Person(
            token=blake3(number.to_bytes(8, "big"), key=secret).digest(),
            given_name=draw.choice(_GIVEN),
            family_name=draw.choice(_FAMILY),
            street=f"{draw.randint(1, 180)} {draw.choice(_STREETS)}",
            town=draw.choice(_TOWNS[region]),
            region=region,
        )
