"""Words as spaCy's English rules split them: the examples below were split by spaCy 3.8."""

import pytest

from nanollm_jax.web import words


@pytest.mark.parametrize('text, expected', [
    ("I don't, can't and won't.", "I do n't , ca n't and wo n't ."),
    ("He's here; it's John's (and they're late).", "He 's here ; it 's John 's ( and they 're late ) ."),
    ('well-known 3-tuple a/b x=y', 'well - known 3 - tuple a / b x = y'),
    ('e.g. Mr. Smith etc. at 5 p.m. in the U.S.', 'e.g. Mr. Smith etc . at 5 p.m. in the U.S.'),
    ('see https://a.example.com/x?y=1. Or foo.bar(x)', 'see https://a.example.com/x?y=1 . Or foo.bar(x )'),
    ('costs $5.50, 10km or 20%', 'costs $ 5.50 , 10 km or 20 %'),
    ('"Yes," she said... "no!"', '" Yes , " she said ... " no ! "'),
    ('cannot gonna Id id', 'can not gon na I d i d'),
    ('end.Start a,b [1] {x}', 'end . Start a , b [ 1 ] { x }'),
    ('#tag @name snake_case', '# tag @name snake_case'),
])
def test_words_are_those_of_spacy(text, expected):
  assert words.split(text) == expected.split()


def test_no_character_is_lost():
  for text in ('a.b.c...d', "''''", '(((x)))', "rock'n'roll's", '——', '...', '$$5km..', 'é–ü', '😀😀'):
    assert ''.join(words.split(text)) == text


def test_long_runs_are_split_in_no_time():
  for run in ('a' * 100_000, '.' * 100_000, 'a.' * 50_000, '(' * 100_000):
    assert ''.join(words.split(run)) == run
