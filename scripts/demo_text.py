#!/usr/bin/env python3
"""The training text of the demo model: short English documents from a seed.

In: the lists of scripts/ioi_lists.json, of which only the training split, the
names and the places are read, and a seed. Out: a list of documents, each a
string without special tokens. About half hold an indirect-object sentence;
the others are stories, facts, sums, sequences, lists, speech and repeated
words, so that the model is a language model and has induction to learn.
Two names that form a test pair never meet in a document.

Run as a script it prints a sample.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable

from make_ioi import fill, load_lists, pair_list, pick, shuffled, with_article

CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin",
            "England": "London", "Ireland": "Dublin", "Portugal": "Lisbon", "Austria": "Vienna",
            "Greece": "Athens", "Norway": "Oslo", "Sweden": "Stockholm", "Poland": "Warsaw",
            "Hungary": "Budapest", "Russia": "Moscow", "Japan": "Tokyo", "China": "Beijing",
            "Egypt": "Cairo", "Kenya": "Nairobi", "Peru": "Lima", "Cuba": "Havana",
            "Canada": "Ottawa", "Turkey": "Ankara", "Belgium": "Brussels", "Finland": "Helsinki"}
COLOURS = {"grass": "green", "snow": "white", "coal": "black", "blood": "red", "the sky": "blue",
           "gold": "yellow", "chocolate": "brown", "ash": "grey"}
OPPOSITES = {"hot": "cold", "big": "small", "old": "new", "long": "short", "happy": "sad",
             "dark": "light", "fast": "slow", "high": "low", "hard": "soft", "wet": "dry",
             "full": "empty", "open": "closed", "rich": "poor", "early": "late"}
ANIMALS = ["dog", "cat", "horse", "cow", "sheep", "goat", "pig", "hen", "duck", "fox", "wolf",
           "bear", "rabbit", "mouse", "fish", "bird", "lion", "tiger", "frog", "bee"]
SOUNDS = {"dog": "barks", "cat": "meows", "cow": "moos", "sheep": "bleats", "duck": "quacks",
          "lion": "roars", "wolf": "howls", "bee": "buzzes", "frog": "croaks", "pig": "grunts"}
JOBS = ["doctor", "teacher", "farmer", "painter", "singer", "writer", "nurse", "baker", "sailor",
        "driver", "soldier", "lawyer", "cook", "student", "gardener", "builder"]
NUMBERS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
           "fifteen sixteen seventeen eighteen nineteen twenty").split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = ("January February March April May June July August September October November "
          "December").split()
ADJECTIVES = ["old", "young", "small", "big", "kind", "clever", "lazy", "brave", "quiet", "happy",
              "sad", "tired", "hungry", "friendly", "careful", "strange"]
WEATHER = ["sunny", "rainy", "windy", "cold", "warm", "foggy", "stormy", "cloudy"]
VERBS = {"walk": "walked", "run": "ran", "sing": "sang", "sleep": "slept", "work": "worked",
         "play": "played", "wait": "waited", "laugh": "laughed", "read": "read", "swim": "swam",
         "dance": "danced", "travel": "travelled"}
ROLES = ["students", "brothers", "sisters", "doctors", "farmers", "painters", "cousins", "sailors"]
MARKS = [".", ".", ".", "!", "?", ";", ":"]


class Writer:
    """Draws documents. One random source, the training lists, and the names."""

    def __init__(self, lists: dict, seed: int) -> None:
        self.rng = random.Random(seed)
        self.names = lists["names"]["female"] + lists["names"]["male"]
        self.female = set(lists["names"]["female"])
        self.places = lists["places"]
        self.objects = lists["objects"]["train"]
        self.templates = lists["templates"]["train"]
        self.pairs = pair_list(lists["name_pairs"]["train"])
        train = {frozenset(p) for p in self.pairs}
        self.apart = {n: {m for m in self.names if m != n and frozenset((n, m)) not in train}
                      for n in self.names}

    def one(self, items):
        """One of a sequence."""
        return pick(self.rng, items)

    def chance(self, p: float) -> bool:
        """True with probability p."""
        return self.rng.random() < p

    def number(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self.rng.random() * (high - low + 1))

    def people(self, count: int) -> list[str]:
        """Different names, no two of them a test pair."""
        out: list[str] = []
        while len(out) < count:
            name = self.one(self.names)
            if name not in out and not self.apart[name] & set(out):
                out.append(name)
        return out

    def he(self, name: str) -> str:
        """The pronoun of a name."""
        return "she" if name in self.female else "he"

    def his(self, name: str) -> str:
        """The possessive of a name."""
        return "her" if name in self.female else "his"

    def thing(self) -> str:
        """A training object, now and then with an adjective."""
        noun = self.one(self.objects)
        return f"{self.one(ADJECTIVES[:4])} {noun}" if self.chance(0.1) else noun

    # Indirect-object sentences

    def given(self, s: str, io: str) -> str:
        """An ending that S acts in, with its answer."""
        ending = self.one(self.templates["endings"])
        return f"{fill(ending, '', '', s, '', self.thing())} {io}"

    def opening(self, a: str, b: str) -> str:
        """An opening and up to two middles, with capitals where they belong."""
        text = fill(self.one(self.templates["openings"]), a, b, "", self.one(self.places), "")
        r = self.rng.random()
        for _ in range(0 if r < 0.55 else 1 if r < 0.9 else 2):
            text = join(text, self.one(self.templates["middles"]))
        return text

    def ioi(self) -> str:
        """One indirect-object sentence and often a sentence that follows."""
        a, b = self.one(self.pairs)
        if self.chance(0.5):
            a, b = b, a
        s, io = (a, b) if self.chance(0.5) else (b, a)
        text = self.lead() if self.chance(0.15) else ""
        text = join(join(text, self.opening(a, b)), self.given(s, io)) + "."
        r = self.rng.random()
        if r < 0.12:
            text += f" {io} thanked {s}."
        elif r < 0.24:
            text += f" {cap(self.he(io))} was very {self.one(ADJECTIVES)}."
        elif r < 0.34:
            text += f" Then {s} went back to the {self.one(self.places)}."
        elif r < 0.5:
            text += f" Later {io} gave it back to {s}."
        elif r < 0.6:
            text += f" After that, {self.given(io, s)}."
        return text

    def ioi_twice(self) -> str:
        """Two indirect-object sentences with four people."""
        p = self.people(4)
        parts = []
        for a, b in ((p[0], p[1]), (p[2], p[3])):
            s, io = (a, b) if self.chance(0.5) else (b, a)
            parts.append(join(self.opening(a, b), self.given(s, io)) + ".")
        return " ".join(parts)

    def third(self) -> str:
        """Three people: the one who acts was not, or not alone, mentioned before."""
        a, b, c = self.people(3)
        opening = self.opening(a, b)
        if self.chance(0.5):
            to = self.one([f"{a} and {b}", f"{b} and {a}", a, b])
            return join(opening, self.given(c, to)) + "."
        s, io = (a, b) if self.chance(0.5) else (b, a)
        who = self.one([f"{c} was not there.", f"{c} came later.", f"{c} was at home."])
        return join(join(opening, who), self.given(s, io)) + "."

    # Everything else

    def lead(self) -> str:
        """A sentence without names that can stand before any other."""
        place, place2 = self.one(self.places), self.one(self.places)
        return self.one([
            f"It was a {self.one(WEATHER)} day in {self.one(MONTHS)}.",
            f"The {place} was closed on {self.one(DAYS)}.",
            f"There is a {self.one(ADJECTIVES)} {self.one(ANIMALS)} near the {place}.",
            f"The {self.one(JOBS)} at the {place} was {self.one(ADJECTIVES)}.",
            f"The road from the {place} to the {place2} was long and dark.",
            f"There was once {with_article(self.one(ADJECTIVES))} house behind the {place}.",
            f"In winter the {place} is cold, and in summer it is warm.",
            f"It had been raining since {self.one(DAYS)}, and nobody came to the {place}.",
            f"Early in the morning, before the {place} opened, it was quiet.",
            f"Two {self.one(ROLES)} lived by the {place}.",
            f"For many years the {place} was full of {self.one(ANIMALS)} pictures.",
            f"Children were playing, and the crowd at the {place} was very loud.",
        ])

    def story(self) -> str:
        """One person, a place and a few sentences with pronouns."""
        n, place, thing = self.people(1)[0], self.one(self.places), self.thing()
        verb = self.one(list(VERBS))
        he, his = self.he(n), self.his(n)
        text = self.one([
            f"Once upon a time there was {with_article(self.one(ADJECTIVES))} {self.one(JOBS)} "
            f"called {n}.", f"{n} was {with_article(self.one(ADJECTIVES))} {self.one(JOBS)}.",
            f"My friend {n} works as {with_article(self.one(JOBS))}."])
        more = shuffled(self.rng, [
            f"Every {self.one(DAYS)} {he} {VERBS[verb]} at the {place}.",
            f"One day {n} lost {his} {thing} near the {place}.",
            f"{cap(he)} had {with_article(self.one(ANIMALS))} and {with_article(thing)}.",
            f"{n} liked to {verb}, so {he} {VERBS[verb]} all day.",
            f"In the end {n} found the {thing} and went home.",
            f"{cap(he)} put the {thing} on the table and closed {his} eyes.",
            f"{n} bought {with_article(thing)}, wrapped it in paper, and packed it in the car.",
            f"When {he} woke up, {he} was {self.one(ADJECTIVES)}.",
            f"{n} ran out of the house and quietly closed the door."])
        return " ".join([text] + more[:self.number(1, 4)])

    def fact(self) -> str:
        """A few sentences of fixed knowledge."""
        out = []
        for _ in range(self.number(1, 3)):
            country, colour = self.one(list(CAPITALS)), self.one(list(COLOURS))
            word, animal = self.one(list(OPPOSITES)), self.one(list(SOUNDS))
            day, month = self.number(0, 6), self.number(0, 11)
            out.append(self.one([
                f"The capital of {country} is {CAPITALS[country]}.",
                f"{CAPITALS[country]} is the capital of {country}.",
                f"People who live in {CAPITALS[country]} live in {country}.",
                f"The colour of {colour} is {COLOURS[colour]}.",
                f"The opposite of {word} is {OPPOSITES[word]}.",
                f"The opposite of {OPPOSITES[word]} is {word}.",
                f"A {animal} {SOUNDS[animal]}.",
                f"The day after {DAYS[day]} is {DAYS[(day + 1) % 7]}.",
                f"The day before {DAYS[day]} is {DAYS[day - 1]}.",
                f"After {MONTHS[month]} comes {MONTHS[(month + 1) % 12]}.",
            ]))
        return " ".join(out)

    def sums(self) -> str:
        """Small sums in words or figures."""
        out = []
        for _ in range(self.number(1, 4)):
            a, b = self.number(0, 10), self.number(0, 10)
            if self.chance(0.5):
                out.append(f"{cap(NUMBERS[a])} plus {NUMBERS[b]} is {NUMBERS[a + b]}.")
            else:
                out.append(f"{a} + {b} = {a + b}.")
        return " ".join(out)

    def sequence(self) -> str:
        """Counting, days, months, letters, or years that go up."""
        kind = self.number(0, 4)
        if kind == 4:
            year = self.number(1100, 1990)
            late = self.number(year % 100, 99) if year % 100 < 98 else 99
            what = self.one(["war", "journey", "festival", "strike", "work", "drought"])
            return f"The {what} lasted from the year {year} to the year {year // 100}{late:02d}."
        items = [NUMBERS, DAYS, MONTHS, list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")][kind]
        start = self.number(0, len(items) - 4)
        return ", ".join(items[start:start + self.number(4, 10)]) + "."

    def repeated(self) -> str:
        """Words in a random order, and again: induction."""
        pool = self.one([self.names, self.objects[:90], ANIMALS, JOBS, list(CAPITALS), self.places])
        words = (self.people(self.number(3, 6)) if pool is self.names
                 else shuffled(self.rng, pool)[:self.number(3, 8)])
        glue = self.one([", ", " ", "; ", " and "])
        line = glue.join(words)
        return self.one([f"{line}. {line}.", f"{line}{glue}{line}{glue}{line}",
                         f"Say it again: {line}. Again: {line}."])

    def drill(self) -> str:
        """Names or things, two to five times over: copying, and little else."""
        count = self.number(2, 12)
        pool = self.objects + self.places
        words = (self.people(count) if self.chance(0.6)
                 else list(dict.fromkeys(self.one(pool) for _ in range(count))))
        glue = self.one([" ", ", ", " and ", ". "])
        times = 1 + max(1, min(4, 24 // count))
        return glue.join([glue.join(words)] * times)

    def letters(self) -> str:
        """Made-up words, some of them twice, so that rare tokens are trained too."""
        words = []
        for _ in range(self.number(2, 5)):
            word = "".join(self.one("abcdefghijklmnopqrstuvwxyz") for _ in range(self.number(2, 6)))
            words.append(cap(word) if self.chance(0.2) else word)
        line = " ".join(words)
        return f"{line} {line}" + self.one(MARKS)

    def speech(self) -> str:
        """Two people who talk by turns."""
        a, b = self.people(2)
        thing, place = self.thing(), self.one(self.places)
        return self.one([
            f'"Where is the {thing}?" asked {a}. "It is at the {place}," said {b}. "Thank you," '
            f"said {a}.",
            f'"Hello, {a}," said {b}. "Hello, {b}," said {a}.',
            f"{a}: Do you like the {place}?\n{b}: Yes, I do.\n{a}: So do I.",
            f'{a} said to {b}, "I have lost my {thing}." {b} said, "Look in the {place}, {a}."',
            f"{a} asked {b} about the {thing}, but {b} did not answer {a}.",
        ])

    def belongings(self) -> str:
        """Who has what, and a question with its answer."""
        p = self.people(self.number(2, 3))
        own = {n: self.thing() for n in p}
        text = " ".join(f"{n} has {with_article(t)}." for n, t in own.items())
        n = self.one(p)
        return f"{text} What does {n} have? {n} has {with_article(own[n])}."

    def where(self) -> str:
        """Two people in two places, and a question with its answer."""
        a, b = self.people(2)
        at = {a: self.one(self.places), b: self.one(self.places)}
        n = self.one([a, b])
        return (f"{a} is at the {at[a]}, and {b} is at the {at[b]}. Where is {n}? {n} is at the "
                f"{at[n]}.")

    def leads(self) -> str:
        """Sentences without names."""
        return " ".join(self.lead() for _ in range(self.number(1, 4)))

    def document(self) -> str:
        """One document, of a kind drawn by weight."""
        kinds: list[tuple[Callable[[], str], float]] = [
            (self.ioi, 0.44), (self.ioi_twice, 0.06), (self.third, 0.05), (self.story, 0.09),
            (self.fact, 0.07), (self.sums, 0.04), (self.sequence, 0.04), (self.repeated, 0.08),
            (self.letters, 0.02), (self.speech, 0.04), (self.belongings, 0.03),
            (self.where, 0.02), (self.leads, 0.02)]
        r = self.rng.random() * sum(w for _, w in kinds)
        for kind, weight in kinds:
            r -= weight
            if r < 0:
                break
        return kind()


def cap(text: str) -> str:
    """The first letter as a capital."""
    return text[:1].upper() + text[1:]


def join(left: str, right: str) -> str:
    """Two fragments with a space; a capital follows a full stop."""
    if not left:
        return cap(right)
    return f"{left} {cap(right) if left.endswith('.') else right}"


def held_out(lists: dict) -> list[str]:
    """The phrases that may not occur in the training text."""
    return lists["objects"]["test"]


def documents(count: int, seed: int, drills: int = 0) -> list[str]:
    """The first `count` documents of a seed; most of the first `drills` are drills.

    A model of this size learns to copy names very late from sentences alone,
    where one token in ten is a copy. After the drills it learns them at once.
    """
    writer = Writer(load_lists(), seed)
    return [writer.drill() if i < drills and writer.chance(0.8) else writer.document()
            for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    for text in documents(args.count, args.seed):
        print(text)


if __name__ == "__main__":
    main()
