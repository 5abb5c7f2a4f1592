"""Near duplicates: signatures by their formula, exact measures, and who stays."""

import random

import numpy as np
import pytest

from nanollm_jax.web import dedup, minhash

WORDS = [f'w{chr(97 + k % 26)}{chr(97 + k // 26)}' for k in range(600)]


def text(seed, count=300):
  return ' '.join(random.Random(seed).choices(WORDS, k=count))


def changed(words, share, seed):
  rng = random.Random(seed)
  return ' '.join(rng.choice(WORDS) if rng.random() < share else word for word in words.split())


def test_shingles_ignore_case_numbers_accents_and_punctuation():
  one = minhash.shingles('The naïve café sold 1,200 cakes, in 2019!')
  assert np.array_equal(one, minhash.shingles('the NAIVE cafe sold 7 cakes in 3.5'))
  assert len(one) == 4 and not np.array_equal(one, minhash.shingles('the naive tea sold 7 cakes in 3'))
  assert len(minhash.shingles('two words')) == 1 and len(minhash.shingles('...')) == 0


def test_jaccard_is_that_of_sets():
  one, other = text(1), changed(text(1), 0.03, 2)
  grams = [{tuple(words[k:k + 5]) for k in range(len(words) - 4)} for words in (one.split(), other.split())]
  expected = len(grams[0] & grams[1]) / len(grams[0] | grams[1])
  assert minhash.jaccard(minhash.shingles(one), minhash.shingles(other)) == pytest.approx(expected)
  assert 0.3 < expected < 0.95


def test_pairs_meet_as_often_as_the_formula_says():
  hits, expected = [], []
  for seed in range(300):
    shared, own = np.random.default_rng(seed).integers(1 << 63, size=(2, 300), dtype=np.uint64)
    one, other = np.concatenate([shared, own[:30]]), np.concatenate([shared, own[30:90]])
    likeness = minhash.jaccard(np.unique(one), np.unique(other))
    hits.append(bool((minhash.bands(one) == minhash.bands(other)).any()))
    expected.append(1 - (1 - likeness**minhash.ROWS)**minhash.BANDS)
  assert 0.7 < np.mean(expected) < 0.85
  assert abs(np.mean(hits) - np.mean(expected)) < 0.08


def run(texts, threshold=0.7):
  keys = [dedup.key_of(f'https://a.example/{name}', '') for name in texts]
  shingles = dict(zip(keys, map(minhash.shingles, texts.values())))
  bands = np.array([minhash.bands(shingles[key]) for key in keys])
  gone = dedup.duplicates(dedup.candidates(keys, bands), shingles.__getitem__, threshold)
  names = dict(zip(keys, texts))
  return {names[key]: (names[one], alike) for key, (one, alike) in gone.items()}


def test_one_of_alike_documents_stays_whatever_the_order():
  texts = {f'{name}{copy}': changed(text(name), 0.004 * copy, copy) for name in range(20) for copy in range(4)}
  gone = run(texts)
  assert all(alike >= 0.7 and first not in gone and first[:-1] == name[:-1]
             for name, (first, alike) in gone.items())
  assert 57 <= len(gone) <= 60
  assert run(dict(reversed(texts.items()))) == gone


def test_exact_copies_are_all_found_even_in_a_crowd():
  gone = run({f'copy {k}': text(0, 40) for k in range(300)} | {f'other {k}': text(k + 1) for k in range(50)})
  assert len(gone) == 299 and {alike for _, alike in gone.values()} == {1.0}
  assert len({first for first, _ in gone.values()}) == 1


def test_what_only_shares_a_band_stays():
  assert run({'a': text(1), 'b': changed(text(1), 0.05, 3)}, threshold=0.999) == {}


def test_candidates_are_followed_to_the_one_that_stays():
  shingles = {name: np.arange(start, start + 100) for name, start in (('a', 0), ('b', 8), ('c', 16), ('d', 24))}
  gone = dedup.duplicates({('a', 'b'), ('b', 'c'), ('c', 'd')}, shingles.__getitem__, 0.7)
  assert {key: first for key, (first, _) in gone.items()} == {'b': 'a', 'c': 'a'}
  assert gone['c'][1] == pytest.approx(84 / 116)
