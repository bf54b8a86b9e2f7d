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
import re
from collections.abc import Callable
from itertools import combinations

from demo_words import (ADJECTIVES, ANIMALS, CAPITALS, CODAS, COLOURS, DAYS, JOBS, MARKS,
                        MONTHS, NUMBERS, ONSETS, OPPOSITES, ROLES, SMALL, SOUNDS, VERBS,
                        VOWELS, WEATHER)
from make_ioi import fill, load_lists, pair_list, pick, shuffled, with_article


class Writer:
    """Draws documents. One random source, the training lists, and the names."""

    def __init__(self, lists: dict, seed: int) -> None:
        self.rng = random.Random(seed)
        self.names = lists["names"]["female"] + lists["names"]["male"]
        self.female = set(lists["names"]["female"])
        self.places = lists["places"]
        self.objects = lists["objects"]["train"]
        self.templates = lists["templates"]["train"]
        self.varied = True
        self.taboo = {w for o in lists["objects"]["test"] for w in o.split()}
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

    def invented(self) -> str:
        """A word that does not exist, of one to four syllables."""
        word = ""
        for _ in range(self.one([1, 1, 2, 2, 2, 3, 3, 4])):
            word += self.one(ONSETS) + self.one(VOWELS) + self.one(CODAS)
        return word if word not in self.taboo else "blim"

    def thing(self) -> str:
        """A training object or an invented one, alone or in a longer phrase."""
        noun = self.one(self.objects)
        if not self.varied:
            return f"{self.one(ADJECTIVES[:4])} {noun}" if self.chance(0.1) else noun
        if self.chance(0.4):
            noun = self.invented()
        r = self.rng.random()
        if r < 0.12:
            return f"{self.one(ADJECTIVES)} {noun}"
        if r < 0.2:
            return f"{self.one(self.objects[:30] + [self.invented()])} of {noun}"
        return f"{self.invented()} {noun}" if r < 0.25 else noun

    def place(self) -> str:
        """A place, seldom an invented one."""
        return self.invented() if self.varied and self.chance(0.1) else self.one(self.places)

    def noisy(self, text: str) -> str:
        """Some of the words, but no name, replaced by others.

        What is left to tell the answer by is the names alone, so the model does
        not come to depend on the wording of the training templates.
        """
        words = text.split(" ")
        for i, word in enumerate(words[:-1]):
            if word.isalpha() and word.islower() and self.chance(0.15):
                words[i] = self.invented() if self.chance(0.5) else self.one(
                    self.objects[:90] + ADJECTIVES + list(VERBS) + list(VERBS.values()) + SMALL)
        return " ".join(words)

    # Indirect-object sentences

    def given(self, s: str, io: str) -> str:
        """An ending that S acts in, with its answer."""
        ending = self.one(self.templates["endings"])
        return f"{fill(ending, '', '', s, '', self.thing())} {io}"

    def opening(self, a: str, b: str) -> str:
        """An opening and up to three middles, with capitals where they belong."""
        text = fill(self.one(self.templates["openings"]), a, b, "", self.place(), "")
        r = self.rng.random()
        for _ in range(0 if r < 0.5 else 1 if r < 0.8 else 2 if r < 0.94 else 3):
            if self.chance(0.25) and text.endswith("."):
                text = join(text, self.lead())
            else:
                text = join(text, self.one(self.templates["middles"]))
        return text

    def ioi(self) -> str:
        """One indirect-object sentence and often a sentence that follows."""
        a, b = self.one(self.pairs)
        if self.chance(0.5):
            a, b = b, a
        s, io = (a, b) if self.chance(0.5) else (b, a)
        text = self.lead() if self.chance(0.2) else ""
        text = join(text, self.opening(a, b))
        given = self.given(s, io)
        while text.endswith((" and", " where")) and given.startswith(("and", "but", "so ")):
            given = self.given(s, io)
        text = join(text, given)
        if self.varied and self.chance(0.3):
            text = self.noisy(text)
        text += "."
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
            return (f"The {what} lasted from the year {year} to the year "
                    f"{year // 100}{late:02d}.")
        items = [NUMBERS, DAYS, MONTHS, list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")][kind]
        start = self.number(0, len(items) - 4)
        return ", ".join(items[start:start + self.number(4, 10)]) + "."

    def repeated(self) -> str:
        """Words in a random order, and again: induction."""
        pool = self.one([self.names, self.objects[:90], ANIMALS, JOBS, list(CAPITALS),
                         self.places])
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
            count = self.number(2, 6)
            word = "".join(self.one("abcdefghijklmnopqrstuvwxyz") for _ in range(count))
            word = word if word not in self.taboo else "blim"
            words.append(cap(word) if self.chance(0.2) else word)
        line = " ".join(words)
        return f"{line} {line}" + self.one(MARKS)

    def speech(self) -> str:
        """Two people who talk by turns."""
        a, b = self.people(2)
        thing, place = self.thing(), self.one(self.places)
        return self.one([
            f'"Where is the {thing}?" asked {a}. "It is at the {place}," said {b}. '
            f'"Thank you," said {a}.',
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
        return (f"{a} is at the {at[a]}, and {b} is at the {at[b]}. Where is {n}? "
                f"{n} is at the {at[n]}.")

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


def leaks(lists: dict, texts: list[str]) -> list[str]:
    """The documents with a test object, or with both names of a test pair."""
    objects = re.compile(r"\b(" + "|".join(map(re.escape, lists["objects"]["test"])) + r")\b")
    names = re.compile(r"\b(" + "|".join(sum(lists["names"].values(), [])) + r")\b")
    apart = {frozenset(p) for p in pair_list(lists["name_pairs"]["test"])}
    return [t for t in texts if objects.search(t.lower())
            or any(frozenset(p) in apart for p in combinations(set(names.findall(t)), 2))]


def documents(count: int, seed: int, drills: int = 0, plain: int = 0) -> list[str]:
    """The first `count` documents of a seed, in the order to train on them.

    Most of the first `drills` are drills: a model of this size learns to copy
    names very late from sentences alone, where one token in ten is a copy. The
    first `plain` keep to the lists. Those after them also have invented words
    and noise, without which unknown objects mislead the model.
    """
    writer = Writer(load_lists(), seed)
    out = []
    for i in range(count):
        writer.varied = i >= plain
        out.append(writer.drill() if i < drills and writer.chance(0.8) else writer.document())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    for text in documents(args.count, args.seed):
        print(text)


if __name__ == "__main__":
    main()
