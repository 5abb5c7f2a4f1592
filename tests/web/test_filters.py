"""Each rule of the filters, on both sides of its threshold, and against slow and plain counting."""

import collections
import random

import pytest

from nanollm_jax import InputError
from nanollm_jax.web import c4, fineweb, gopher, page, pii, pipeline, url, words

VOCABULARY = [f'{first}{last}' for first in ('ba', 'co', 'du', 'fe', 'gi', 'ho') for last in
              ('n', 'rt', 'll', 'ss', 'm', 'nk', 'pe', 'st')]


def prose(count=200, seed=0):
  rng = random.Random(seed)
  return ' '.join('the' if k % 9 == 0 else 'of' if k % 9 == 4 else rng.choice(VOCABULARY)
                  for k in range(count))


def again(text, n):
  """Characters of n-grams that came before, as the recipe counts them, word by word."""
  found, before, at, characters = words.split(text), set(), 0, 0
  while at + n <= len(found):
    gram = tuple(found[at:at + n])
    if gram in before:
      characters, at = characters + sum(map(len, gram)), at + n
    else:
      before.add(gram)
      at += 1
  return characters


def slowly(text):
  found = words.split(text)
  for n, share in gopher.TOP.items():
    grams = [' '.join(found[at:at + n]) for at in range(len(found) - n + 1)]
    if grams:
      gram, count = collections.Counter(grams).most_common(1)[0]
      if len(gram) * count / len(text) > share:
        return f'top_{n}_gram'
  return next((f'repeated_{n}_grams' for n, share in gopher.AGAIN.items()
               if again(text, n) / len(text) > share), '')


@pytest.mark.parametrize('seed', range(60))
def test_arrays_count_as_loops_do(seed):
  rng = random.Random(seed)
  few = rng.sample(VOCABULARY, rng.choice((1, 2, 5, 20, 40)))
  parts = [' '.join(rng.choices(few, k=rng.randrange(1, 30))) for _ in range(rng.randrange(1, 9))]
  text = ' '.join(rng.choices(parts, k=rng.randrange(1, 12)) + [prose(rng.randrange(0, 400), seed)])
  assert gopher.repetition(page.page_of(text)) == slowly(text)


def test_every_rule_of_repetition_is_met():
  met = set()
  for seed in range(300):
    rng = random.Random(seed)
    phrase = ' '.join(rng.choices(VOCABULARY, k=seed % 12 + 1))
    met.add(gopher.repetition(page.page_of(' '.join(
        [prose(60, seed + k) + ' ' + phrase for k in range(3)] * (1 + seed % 2)
        + [phrase] * (seed % 5)))))
  often = ' '.join(f'very good {word}' for word in VOCABULARY)
  met |= {gopher.repetition(page.page_of(often))}
  assert {'', 'top_2_gram', 'repeated_5_grams', 'repeated_9_grams'} <= met


@pytest.mark.parametrize('copies, reason', [(4, ''), (5, 'duplicate_lines')])
def test_duplicate_lines(copies, reason):
  text = '\n'.join([prose(40, k) for k in range(7)] + ['a'] * copies)
  assert gopher.repetition(page.page_of(text)) == reason


def quality(text):
  return gopher.quality(page.page_of(text))


@pytest.mark.parametrize('reason, text', [
    ('', prose()), ('few_words', prose(49)), ('', prose(50)), ('many_words', prose(100_001)),
    ('', prose(100_000)), ('few_words', prose(49) + ' !' * 40),
    ('short_words', 'a of the ' * 20 + 'b c ' * 40), ('long_words', 'the of ' + 'abcdefghijkl ' * 60),
    ('hashes', prose(80) + ' #' * 10), ('', prose(100) + ' #' * 10),
    ('ellipses', prose(80) + ' ...' * 10),
    ('bullets', '\n'.join('- ' + prose(9, k) for k in range(10))),
    ('', '\n'.join(['- ' + prose(9, k) for k in range(9)] + [prose(9)])),
    ('lines_of_ellipses', '\n'.join([prose(15, k) + '...' for k in range(4)] + [prose(15)] * 6)),
    ('', '\n'.join([prose(15, k) + '…' for k in range(3)] + [prose(15)] * 7)),
    ('words_without_letters', prose(79) + ' 12' * 21), ('', prose(80) + ' 12' * 20),
    ('stop_words', prose().replace('of', 'off')),
], ids=lambda value: value[:24])
def test_gopher_quality(reason, text):
  assert quality(text) == reason


LINES = [prose(12, k).capitalize() + '.' for k in range(8)]


@pytest.mark.parametrize('reason, lines', [
    ('', LINES), ('', LINES[:5]), ('few_sentences', LINES[:4]), ('', [' '.join(LINES[:5])]),
    ('lorem_ipsum', [*LINES, 'Lorem ipsum dolor sit.']), ('curly_bracket', [*LINES, 'if x { y }'])])
def test_c4_drops_pages(reason, lines):
  assert c4.clean('\n'.join(lines))[1] == reason


def test_c4_drops_lines_and_citations():
  lines = [*LINES, 'Two words', 'Please turn on JavaScript now', 'We use cookies on this site',
           'Our Privacy Policy is here', 'A word ' + 'x' * 1001, 'Known [1] since [citation needed] then.']
  kept, reason = c4.clean('\n'.join(lines))
  assert (kept.splitlines(), reason) == ([*LINES, 'Known  since  then.'], '')


@pytest.mark.parametrize('reason, lines', [
    ('', LINES), ('lines_without_punctuation', [*LINES[:1], *(line[:-1] for line in LINES)]),
    ('', [*LINES[:2], *(line[:-1] + f' {k}' for k, line in enumerate(LINES))]),
    ('short_lines', [*LINES[:3], *(f'Short {k}.' for k in range(7))]),
    ('', [*LINES[:4], *(f'Short {k}.' for k in range(8))]),
    ('characters_of_duplicate_lines', [*LINES, LINES[0]]), ('empty', ['']),
    ('newlines', [f'Ab{k}{"x" * 40}.' for k in range(20)])], ids=str)
def test_fineweb(reason, lines):
  assert fineweb.reason('\n'.join(lines)) == reason


def test_private_data():
  text = ('Write to jo.doe+x@mail.example.co.uk, or <me@a-b.example>. Hosts 8.8.8.8, 10.0.0.1, '
          '192.168.1.17 and 1.2.3.4.5; version 1.2.3; 999.1.1.1; a@b; @name.')
  masked, count = pii.mask(text)
  assert count == 3
  assert masked == text.replace('jo.doe+x@mail.example.co.uk', pii.EMAILS[0]).replace(
      'me@a-b.example', pii.EMAILS[1]).replace('8.8.8.8', pii.IPS[2])
  for hostile in ('!' * 200_000 + '@', 'a.' * 100_000 + '@', 'a@' * 100_000, '1.' * 200_000):
    assert pii.mask(hostile) == (hostile, 0)


@pytest.mark.parametrize('address, reason', [
    ('https://free-porn-videos.example/1', 'hard_word'), ('https://a.example/XVIDEOS/b', 'hard_word'),
    ('https://a.example/sexy/webcam/1', 'soft_words'), ('https://phone-sex.example/', 'part_of_word'),
    ('https://www.essex-county.example/sussex/', ''), ('https://scunthorpe.example/class-analysis', ''),
    ('https://birds.example/sexual-selection', ''), ('https://food.example/chicken-breast', ''),
    ('https://bad.example/x', 'domain'), ('http://www.BAD.example:80/x', 'domain'),
    ('https://user@bad.example./', 'domain'), ('https://notbad.example/', ''),
    ('https://ads.good.example/', 'domain'), ('https://good.example/', ''),
    ('https://good.example/one-page', 'url'), ('https://good.example/one-page/more', '')])
def test_urls(tmp_path, address, reason):
  (tmp_path / 'list.txt').write_text('# own\nbad.example\nads.good.example\nhttps://good.example/one-page\n')
  assert url.blocked((str(tmp_path / 'list.txt'),)).reason(address) == reason


def test_lists_that_cannot_be_read_are_named(tmp_path):
  with pytest.raises(InputError, match='gone.txt cannot be read.*blocklists'):
    url.blocked((str(tmp_path / 'gone.txt'),))


def test_words_are_those_of_the_text_that_is_left():
  whole = '\n'.join([*LINES, 'Please turn on JavaScript now.'])
  made = pipeline.judge_text(pipeline.Document('u', 'i', 'k', 'read', '', text=whole),
                             pipeline.WebConfig(steps=('c4',)))
  assert made.step == 'kept' and made.text == '\n'.join(LINES)
  assert made.words == len(page.page_of('\n'.join(LINES)).id_N)
