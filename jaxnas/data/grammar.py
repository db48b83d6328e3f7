"""A made-up language, small enough to learn in minutes, in which much can be learned.

Its sentences follow these rules; alternatives have the same probability if none is
given, and a word is drawn uniformly from its list.

    sentence  = subject(number) predicate(number)
    number    = singular (1/2) | plural (1/2)
    subject   = phrase(number)
    phrase    = determiner [adjective (1/4)] noun(number) [clause(number) (1/4)]
    clause    = "that" predicate(number) (1/2) | "that" phrase(other) verb(other) (1/2)
    predicate = intransitive(number) (1/2) [adverb (1/4)]
              | transitive(number) object (1/2)
    object    = phrase(other)

A verb agrees with its noun, however many words stand between, so that a model has to
remember. `other` is a number of its own. Within a clause, phrases have no clause.
"""

import math
import random
from typing import NamedTuple

DETERMINERS = {"singular": ("the", "a", "every"), "plural": ("the", "some", "many")}
ADJECTIVES = ("big", "small", "old", "young", "happy", "hungry")
NOUNS = ("bird", "cat", "dog", "fox", "hen", "horse", "lion", "owl", "pig", "wolf")
TRANSITIVE = ("bite", "chase", "follow", "hear", "see", "like")
INTRANSITIVE = ("bark", "eat", "play", "run", "sing", "sleep")
ADVERBS = ("often", "today", "slowly", "again")

SPLITS = {"train": (4_000, 0), "validation": (500, 1), "test": (500, 2)}
"""Numbers of sentences, and seeds."""


class MadeUpText(NamedTuple):
    """Sentences and how probable they are.

    Attributes:
      lines: the sentences, words divided by spaces.
      log_prob: natural logarithm of the probability that the rules give to all of them.
    """

    lines: list[str]
    log_prob: float


def sample(num_sentences: int, seed: int) -> MadeUpText:
    """Draw sentences.

    Args:
      num_sentences: how many.
      seed: determines them, whatever the versions of the packages.

    Returns:
      The text.
    """
    sampler = _Sampler(seed)
    lines = [" ".join(sampler.sentence()) for _ in range(num_sentences)]
    return MadeUpText(lines, sampler.log_prob)


def _plural(noun: str) -> str:
    return {"wolf": "wolves", "fox": "foxes"}.get(noun, f"{noun}s")


class _Sampler:
    """Draws, and adds up the logarithms of the probabilities of what was drawn."""

    def __init__(self, seed: int):
        # Of this generator, only `random` is the same in all versions of Python.
        self._uniform = random.Random(seed).random
        self.log_prob = 0.0

    def choose(self, choices: tuple[str, ...]) -> str:
        self.log_prob -= math.log(len(choices))
        return choices[int(self._uniform() * len(choices))]

    def happens(self, prob: float) -> bool:
        happens = self._uniform() < prob
        self.log_prob += math.log(prob if happens else 1 - prob)
        return happens

    def number(self) -> str:
        return "plural" if self.happens(0.5) else "singular"

    def sentence(self) -> list[str]:
        number = self.number()
        return [*self.phrase(number), *self.predicate(number)]

    def phrase(self, number: str, *, may_nest: bool = True) -> list[str]:
        words = [self.choose(DETERMINERS[number])]
        if self.happens(0.25):
            words.append(self.choose(ADJECTIVES))
        noun = self.choose(NOUNS)
        words.append(noun if number == "singular" else _plural(noun))
        if may_nest and self.happens(0.25):
            words += self.clause(number)
        return words

    def clause(self, number: str) -> list[str]:
        if self.happens(0.5):
            return ["that", *self.predicate(number, may_nest=False)]
        other = self.number()
        phrase = self.phrase(other, may_nest=False)
        return ["that", *phrase, self.verb(TRANSITIVE, other)]

    def predicate(self, number: str, *, may_nest: bool = True) -> list[str]:
        if self.happens(0.5):
            words = [self.verb(INTRANSITIVE, number)]
            return [*words, self.choose(ADVERBS)] if self.happens(0.25) else words
        verb = self.verb(TRANSITIVE, number)
        return [verb, *self.phrase(self.number(), may_nest=may_nest)]

    def verb(self, verbs: tuple[str, ...], number: str) -> str:
        verb = self.choose(verbs)
        return f"{verb}s" if number == "singular" else verb
