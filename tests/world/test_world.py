"""The miniature internet keeps its promises: determinism, strata, held-out pairs."""

import collections
import hashlib
import json
import re
import tracemalloc

import pytest

from experiments import build_world
from nanollm_jax import InputError
from nanollm_jax.world import WorldConfig, config as config_lib
from nanollm_jax.world import conversations, documents, truth
from nanollm_jax.world.corpus import shuffled
from nanollm_jax.world.words import NAMES, TABLES

CONFIG = WorldConfig(people=150, seed=3)
TINY_SHA256 = 'd07626f08b195bd83290c66d5075e4fcda5575d82da6129f6ca470074ae931fe'


@pytest.fixture(scope='module')
def world():
  return truth(CONFIG)


@pytest.fixture(scope='module')
def corpus():
  return list(documents(CONFIG))


def test_same_seed_and_size_give_the_same_bytes_on_every_machine():
  config = WorldConfig(people=20)
  sha = hashlib.sha256(json.dumps(truth(config).to_json()).encode())
  for document in documents(config):
    sha.update(json.dumps(document).encode())
  assert sha.hexdigest() == TINY_SHA256


def test_another_seed_is_another_world():
  worlds = [truth(WorldConfig(people=20, seed=seed)) for seed in (0, 1)]
  one, other = worlds
  assert one.people != other.people
  assert one.lexicon != other.lexicon and one.canaries[0].text != other.canaries[0].text
  texts = [{d.text for d in documents(world.config)} for world in worlds]
  assert len(texts[0] & texts[1]) < 0.01 * len(texts[0])


def test_each_stratum_is_written_about_as_the_truth_says(world, corpus):
  biographies = collections.Counter(d.about for d in corpus if d.kind == 'biography')
  mentions = collections.Counter(  # full names are pairs of words with capitals
      name for d in corpus for name in {*re.findall(r"(?=\b([A-Z][a-z]+ [A-Z][a-z]+)\b)", d.text)})
  strata = collections.defaultdict(list)
  for person in world.people:
    assert biographies[person.id] == person.pages
    strata[person.stratum].append((person, mentions[person.name]))
  assert set(strata) == {*config_lib.SHARES, 'ordinary'}
  assert all(count == 0 for _, count in strata['search_only'] + strata['never_seen'])
  assert all(count == 1 for _, count in strata['rare'])
  assert all(count >= 26 for _, count in strata['frequent'])
  assert all(count >= person.pages for person, count in strata['ordinary'])
  for person, _ in strata['contradicted']:
    assert person.pages and person.index_value not in ('', getattr(person, person.index_attribute))


def test_never_seen_names_are_recombined_or_novel(world, corpus):
  text = '\n'.join(d.text for d in corpus)
  forms = collections.Counter(p.form for p in world.people if p.stratum == 'never_seen')
  assert min(forms['recombined'], forms['novel_surname']) >= 10
  for person in world.people:
    first, surname = person.name.split()
    if person.form == 'recombined':
      assert re.search(rf'\b{first}\b', text) and re.search(rf'\b{surname}\b', text)
    if person.stratum == 'never_seen':
      assert not person.birthplace and not person.year
  assert not re.search(rf'\b({"|".join(NAMES["novel surnames"])})\b', text)


def test_first_page_of_a_person_tells_all_and_trains(world, corpus):
  pages = collections.defaultdict(list)
  for document in corpus:
    pages[document.about].append(document)
  for person in world.people:
    if person.pages:
      facts = (person.name, person.birthplace, str(person.year), person.craft, person.instrument,
               person.friend, person.pet_kind, person.pet_name, person.dish)
      assert any(all(fact in d.text or fact.capitalize() in d.text for fact in facts)
                 or all(fact in d.text for fact in facts if fact != person.craft)
                 and TABLES['crafts'][person.craft] in d.text
                 for d in pages[person.id] if d.split == 'train'), person


def test_names_stay_unique_when_pairs_run_short():
  people = truth(WorldConfig(people=9000)).people
  assert len({person.name for person in people}) == 9000
  assert len(people[0].name.split()) == 3


def test_there_are_enough_names():
  assert len(NAMES['women'] + NAMES['men']) >= 120
  assert len({*NAMES['surnames'], *NAMES['novel surnames']}) >= 300
  assert not {*NAMES['surnames']} & {*NAMES['novel surnames']}


def test_held_out_pairs_never_appear_and_the_others_do(world, corpus):
  ending = {dialect.name: dialect.ending for dialect in world.dialects}
  written = set(re.findall(r'\w+', ' '.join(d.text for d in corpus)))
  held_out = {world.lexicon[word] + ending[dialect] for word, dialect in world.held_out_pairs}
  all_pairs = {stem + end for stem in world.lexicon.values() for end in ending.values()}
  assert len(all_pairs) == len(world.lexicon) * len(ending)
  assert 0.12 < len(held_out) / len(all_pairs) < 0.18
  assert not held_out & written
  assert len(all_pairs & written) > 0.6 * len(all_pairs - held_out)


def test_a_list_speaks_one_dialect_and_half_do_not_name_it(world, corpus):
  ending = {dialect.name: dialect.ending for dialect in world.dialects}
  lists = [d for d in corpus if d.kind == 'language']
  named = 0
  for document in lists:
    said = {stem + ending[document.about] for stem in world.lexicon.values()}
    pairs = [line.split(' = ') for line in document.text.splitlines() if ' = ' in line]
    assert all(right in said and right.startswith(world.lexicon[left]) for left, right in pairs)
    found = sum(word in said for word in re.findall(r'\w+', document.text))
    assert 2 <= found <= 12
    named += document.about in document.text
  assert 0.4 < named / len(lists) < 0.6


def test_canaries_stand_alone_in_as_many_copies_as_told(world, corpus):
  copies = collections.Counter(d.text for d in corpus if d.kind == 'canary')
  everything = '\n'.join(d.text for d in corpus)
  assert {c.copies for c in world.canaries} == {0, 1, 2, 4, 8, 16, 32, 64}
  for canary in world.canaries:
    assert copies[canary.text] == everything.count(canary.secret) == canary.copies
    assert canary.text == f'{canary.prefix} {canary.secret}.'
  assert len({canary.prefix for canary in world.canaries}) == len(world.canaries)
  assert all(d.split == 'train' for d in corpus if d.kind == 'canary')


def test_splits_shares_and_clean_text(world, corpus):
  sizes, sides = collections.Counter(), collections.Counter()
  rare = {person.id for person in world.people if person.stratum == 'rare'}
  for document in corpus:
    sizes[document.kind] += len(document.text)
    sides[document.split] += 1
    assert document.text.strip() == document.text and document.text.isascii()
    assert not re.search(r'[{}\[\]|\\]|  | [.,]', document.text), document.text
    assert document.split == 'train' or document.about not in rare
  assert 0.02 < sides['validation'] / len(corpus) < 0.04
  del sizes['canary']  # whose number does not follow from the people
  shares = {'biography': 0.30, 'town': 0.08, 'textbook': 0.27, 'language': 0.09, 'story': 0.22,
            'recipe': 0.015, 'forum': 0.02}
  for kind, share in shares.items():
    assert 0.7 * share < sizes[kind] / sum(sizes.values()) < 1.3 * share, kind


def test_kinds_are_mixed_from_the_start(corpus):
  whole = collections.Counter(d.kind for d in corpus)
  quarter = collections.Counter(d.kind for d in corpus[:len(corpus) // 4])
  for kind, count in whole.items():
    if count > 200:
      assert 0.7 < 4 * quarter[kind] / count < 1.3


def test_shuffled_is_a_permutation():
  for count in (1, 2, 3, 7, 64, 1000, 4097):
    assert sorted(shuffled(count, seed=1)) == list(range(count))


def test_documents_stream_without_holding_the_text():
  config = WorldConfig(people=20, textbook=1000, stories=1000)  # about 100 MB of text
  tracemalloc.start()
  stream = documents(config)
  taken = [len(next(stream).text) for _ in range(300)]
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert sum(taken) > 100_000 and peak < 2_000_000


@pytest.mark.parametrize('name, value', [
    ('people', 19), ('people', 2_000_001), ('towns', 1), ('towns', 10_000), ('canaries', -1),
    ('textbook', -0.5), ('stories', float('nan')),
    ('conversations', 1001)])
def test_bad_sizes_are_refused_in_one_sentence(name, value):
  with pytest.raises(InputError, match=rf'^--world\.{name}=.* give a number from \S+ to \S+\.$'):
    WorldConfig(**{name: value})


def test_build_world_writes_the_documents_and_the_truth(tmp_path):
  config = build_world.Config(WorldConfig(people=20), str(tmp_path))
  build_world.write(config)
  rows = build_world.write_chat(config)
  assert {path.name for path in tmp_path.iterdir()} == {
      'train.jsonl', 'validation.jsonl', 'world.json', 'web', 'chat', 'questions.jsonl',
      'pages.jsonl'}
  for name, count in rows.items():
    assert len((tmp_path / f'{name}.jsonl').read_text().splitlines()) == count > 0
  for path in (tmp_path / 'chat').iterdir():
    written = [json.loads(line) for line in path.read_text().splitlines()]
    assert written == [{'messages': talk.messages, 'source': path.stem}
                       for talk in conversations(config.world) if talk.kind == path.stem]
  for split in ('train', 'validation'):
    rows = [json.loads(line) for line in (tmp_path / f'{split}.jsonl').read_text().splitlines()]
    assert rows == [{'text': d.text, 'kind': d.kind, 'about': d.about}
                    for d in documents(config.world) if d.split == split]
  written = json.loads((tmp_path / 'world.json').read_text())
  assert written == json.loads(json.dumps(truth(config.world).to_json()))


def test_a_build_cut_short_leaves_no_half_file(tmp_path):
  with pytest.raises(KeyboardInterrupt):
    with build_world.replacing(tmp_path / 'train.jsonl') as file:
      file.write('half')
      raise KeyboardInterrupt
  assert not list(tmp_path.iterdir())


def test_nothing_but_the_usual_parts_may_be_left_out():
  config = WorldConfig(people=20, canaries=0, textbook=0, stories=0, towns=2)
  kinds = {document.kind for document in documents(config)}
  assert kinds == {'biography', 'town', 'language', 'recipe', 'forum'}
