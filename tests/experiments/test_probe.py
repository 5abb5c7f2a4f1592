"""Judges on fixed texts and behind a fake endpoint, thresholds, questions, the card."""

import http.server
import json
import threading

import jax
import numpy as np
import pytest

from experiments import facts, judge, probe_knowledge, workdir
from experiments.facts import Fact
from experiments.judge import Verdict
from experiments.probe_knowledge import Config
from nanollm_jax import InputError, tasks
from nanollm_jax.data import formats
from nanollm_jax.eval.choice import Score
from nanollm_jax.model import transformer
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.sample.engine import Sampling
from nanollm_jax.text import known
from nanollm_jax.text.chat import Chat
from nanollm_jax.world.question import DONT_KNOW

OBOE = Fact('Which instrument does Ada Hill play?', 'oboe', ('hautboy',), 'instrument', '', 'rare')
BELL = Fact('Which instrument does Bell Oboe play?', 'cow bell', (), 'instrument', '', 'rare')
NOBODY = Fact('Which instrument does Orson Kovacs play?', '', (), 'instrument', '', 'novel')
BARE = Fact('Who wrote it?', 'Ada Hill')
EXACT = judge.Exact([OBOE, BELL, NOBODY, Fact('', 'bell', relation='instrument')])


@pytest.mark.parametrize('fact, text, correct, informative', [
    (OBOE, 'Ada plays the oboe.', True, True),
    (OBOE, 'The HAUTBOY!', True, True),
    (OBOE, 'The oboe, or the hautboy.', True, True),
    (OBOE, 'She plays the bell.', False, True),
    (OBOE, 'The oboe or the bell.', False, True),
    (OBOE, 'The oboes.', False, False),
    (OBOE, 'Good morning! How can I help?', False, False),
    (OBOE, "I don't know whether it is the oboe.", False, False),
    (OBOE, '', False, False),
    (BELL, 'Bell Oboe plays the cow bell.', True, True),  # neither the name nor a part is told
    (BELL, 'Bell Oboe plays.', False, False),
    (BELL._replace(question='What does Cy play?'), 'The cow bell.', True, True),  # and no bell
    (NOBODY, 'He plays the oboe.', False, True),
    (NOBODY, 'I have never heard of that person.', False, False),
    (BARE, 'It was Ada Hill.', True, True),
    (BARE, 'It was Bo.', False, True),
])
def test_exact_judges_by_whole_words(fact, text, correct, informative):
  assert EXACT([(fact, text)]) == [Verdict(correct, informative)]


def test_every_wording_of_the_world_is_a_refusal():
  assert not any(EXACT.told(OBOE, wording) for wording in DONT_KNOW)


@pytest.mark.parametrize('right, wrong, empty, expected', [
    (6, 2, 0, 'known'), (5, 3, 0, 'unsure'), (0, 6, 2, 'unknown'), (0, 5, 3, 'unsure'),
    (1, 7, 0, 'unsure'), (8, 0, 0, 'known'), (0, 0, 8, 'unsure')])
def test_labels_follow_from_thresholds(right, wrong, empty, expected):
  verdicts = ([Verdict(True, True)] * right + [Verdict(False, True)] * wrong
              + [Verdict(False, False)] * empty)
  assert probe_knowledge.label(Config(), verdicts) == expected
  assert probe_knowledge.label(Config(), [*verdicts[1:], None]) == 'unjudged'
  if right == 1:
    assert probe_knowledge.label(Config(wrong=0.125), verdicts) == 'unknown'


@pytest.mark.parametrize('bad', [dict(wrong=0.8), dict(known=1.1), dict(samples=0),
                                 dict(judge='oracle'), dict(sample=Sampling(temperature=0))])
def test_bad_flags(bad):
  with pytest.raises(InputError, match='--'):
    Config(**bad)


def test_refusals_are_the_worlds_or_those_of_a_file(tmp_path):
  assert probe_knowledge.wordings_of('') == DONT_KNOW
  (tmp_path / 'own').write_text('Keine Ahnung.\n\nNo idea.\n')
  assert probe_knowledge.wordings_of(tmp_path / 'own') == ['Keine Ahnung.', 'No idea.']
  (tmp_path / 'own').write_text('\n')
  for path in (tmp_path / 'own', tmp_path / 'none'):
    with pytest.raises(InputError, match=f'--wordings={path}.*a refusal a line'):
      probe_knowledge.wordings_of(path)


def test_nobody_held_out_is_probed():
  row = dict(answer='oboe', attribute='instrument', stratum='rare', split='train', person='p1')
  rows = [
      row | dict(question='Which instrument does Ada Hill play?'),
      row | dict(question='Who is the friend of Ada Hill?', attribute='friend', answer='Bo Test'),
      row | dict(question='Who is the friend of Cy Dale?', attribute='friend', answer='Ada Hill',
                 snippet='Cy likes Bo.', snippet_answer='Bo'),
      row | dict(question='What does Bo Test play?', split='test'),
      row | dict(question='And Orson?', answer='', stratum='never_seen', form='novel_surname')]
  found = facts.facts_of(rows)
  assert [fact.question for fact in found] == [rows[i]['question'] for i in (0, 2, 4)]
  assert found[1].snippet == ''  # it contradicts the answer
  assert [fact.group for fact in found] == ['rare', 'rare', 'novel_surname']
  assert len(facts.facts_of(rows, held_out=True)) == 5


def test_a_gap_is_a_name_or_number():
  assert facts.gap('Rain fell. Ada Hill was born in 1950, it is said. Yes.') == (
      'Which word is missing? Ada Hill was born in ____, it is said.', '1950')
  assert facts.gap('Ada Hill sings. So it goes on and on.') is None


def probes():
  def one(fact, *texts):
    return probe_knowledge.probe(Config(samples=4), [fact], [list(texts)], EXACT)[0]
  return [one(OBOE, 'The bell.', 'The oboe.', 'An oboe.', 'Oboe.'),
          one(NOBODY, 'The bell.', 'The oboe.', 'The bell.', 'The bell.'),
          one(BELL, 'Hello!', 'Hello!', 'Hello!', 'Hello!')]


def test_refusals_only_for_what_is_unknown():
  refused, kept = probe_knowledge.conversations(probes(), ['No idea.'])
  assert refused == [probe_knowledge.told(NOBODY, 'No idea.')]
  assert kept == [probe_knowledge.told(OBOE, 'The oboe.')]


def test_the_card_counts_and_shows():
  card = probe_knowledge.card_of(Config(samples=4, judge='self'), probes(), judge.Exact([]))
  assert card['counts'] == dict(known={'rare': 1}, unknown={'novel': 1}, unsure={'rare': 1},
                                unjudged={})
  assert card['flags']['wrong'] == 0.0
  # Without the world's answers everything said is informative: the four greetings differ.
  assert card['agreement'] == dict(correct=1.0, informative=8 / 12)
  text = probe_knowledge.written_card(card)
  assert '| known | 1 | 0 | 1 |' in text and '| unknown | 1 | 1 | 0 |' in text
  assert '(nobody knows)' in text and '- 3 x The bell.' in text


class Fake(http.server.BaseHTTPRequestHandler):
  """Says that an answer with 'oboe' is right; first is busy, then says nonsense."""

  def do_POST(self):
    asked = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
    prompt = asked['messages'][0]['content']
    self.server.seen.append((self.path, self.headers['Authorization'], asked['model'], prompt))
    turn = len(self.server.seen)
    if turn in self.server.codes:
      self.send_response(self.server.codes[turn])
      self.send_header('Retry-After', '0')
      self.end_headers()
      return
    said = self.server.said.get(turn)
    if said is None:
      said = f'Well. {json.dumps({"verdict": "oboe" in prompt.split("Answer:")[1]})} That is all.'
    body = json.dumps({'choices': [{'message': {'content': said}}]}).encode()
    self.send_response(200)
    self.end_headers()
    self.wfile.write(body)

  def log_message(self, *_):
    pass


@pytest.fixture
def server():
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Fake) as server:
    server.seen, server.codes, server.said = [], {}, {}
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.url = f'http://127.0.0.1:{server.server_port}/v1'
    yield server
    server.shutdown()
    thread.join()


def endpoint(server, **options):
  return judge.Endpoint(server.url, 'm', 'PROBE_TEST_KEY', pause=0.01, workers=1, **options)


def test_an_endpoint_judges_through_a_busy_and_a_malformed_answer(server, monkeypatch):
  monkeypatch.setenv('PROBE_TEST_KEY', 'secret')
  server.codes, server.said = {1: 429}, {2: 'Sure: {"verdict": tru', 3: '{"verdict": "yes"}'}
  pairs = [(OBOE, 'the oboe'), (OBOE, 'the bell'), (OBOE, 'the oboe'), (NOBODY, 'the oboe')]
  right, wrong = Verdict(True, True), Verdict(False, False)
  assert endpoint(server)(pairs) == [right, wrong, right, Verdict(False, True)]
  assert len(server.seen) == 3 + 2 + 2 + 1  # equal pairs once; nobody's answer is never correct
  path, key, model, prompt = server.seen[-1]
  assert (path, key, model) == ('/v1/chat/completions', 'Bearer secret', 'm')
  assert 'Text:' not in prompt  # what is informative is judged without the truth
  assert 'The answer is oboe.' in server.seen[4][3]


def test_an_endpoint_that_never_says_json_leaves_questions_unjudged(server):
  server.said = {turn: 'Yes.' for turn in range(100)}
  ask = endpoint(server, attempts=2)
  assert ask([(OBOE, 'the oboe')]) == [None]
  found, = probe_knowledge.probe(Config(samples=1), [OBOE], [['the oboe']], ask)
  assert found.label == 'unjudged'


@pytest.mark.parametrize('code, times', [(401, 1), (503, 3)])
def test_an_endpoint_that_refuses_is_one_clear_error(server, code, times):
  server.codes = {turn: code for turn in range(100)}
  with pytest.raises(InputError, match=f'HTTP {code}.*PROBE_TEST_KEY'):
    endpoint(server, attempts=3)([(OBOE, 'the oboe')])
  assert len(server.seen) == times


def test_an_endpoint_that_is_not_there():
  with pytest.raises(InputError, match='--judge=http://127.0.0.1:9 cannot be reached'):
    judge.Endpoint('http://127.0.0.1:9', attempts=2, pause=0.01)([(OBOE, 'the oboe')])


def test_an_endpoint_writes_questions(server):
  server.said = {1: '{"question": "Who?"}', 2: '{"question": "Who?", "answer": "Ada"}'}
  found = facts.written([{'text': 'Ada sings.'}], endpoint(server).write)
  assert found == [Fact('Who?', 'Ada', snippet='Ada sings.')]


@pytest.fixture
def opened(corpus, monkeypatch):
  """A tiny model that has learned nothing; it is found in every workdir."""
  tokenizer = known.from_name_or_file(corpus)
  config = ModelConfig(depth=1, width=16, heads=1, context=128).resolve(tokenizer.size)
  found = workdir.Opened(config, transformer.init(config, jax.random.key(0)), tokenizer)
  monkeypatch.setattr(workdir, 'open_model', lambda _: found)
  return found


def test_a_run_leaves_conversations_and_a_card(opened, tmp_path):
  questions = tmp_path / 'questions.jsonl'
  questions.write_text(''.join(json.dumps(row) + '\n' for row in [
      {'question': 'Who sees it?', 'answer': 'zebra'}, {'text': 'The cat went to Rome.'}]))
  probe_knowledge.main(Config(workdir=str(tmp_path), questions=str(questions), samples=2,
                              informative=0.0, sample=Sampling(max_tokens=4)))
  card = json.loads((tmp_path / 'card.json').read_text())
  assert card['counts']['unknown'] == {'': 2}
  refusals = list(formats.conversations(tmp_path / 'refusals.jsonl'))
  assert [one[0]['content'] for one in refusals] == [
      'Who sees it?', 'Which word is missing? The cat went to ____.']
  assert all(tasks.refuses(one[1]['content']) for one in refusals)
  assert (tmp_path / 'known.jsonl').read_text() == ''
  assert '--samples=2' in (tmp_path / 'card.md').read_text()


def test_what_is_too_long_is_left_out_and_only_what_there_is_is_advised(opened, tmp_path, capsys):
  questions = tmp_path / 'questions.jsonl'
  questions.write_text(''.join(json.dumps(row) + '\n' for row in [
      {'question': 'Who sees it? ' * 99, 'answer': 'zebra'},
      {'question': 'Who sees it?', 'answer': 'zebra', 'aliases': None}]))
  config = Config(workdir=str(tmp_path / 'out'), questions=str(questions), samples=2,
                  informative=0.0, sample=Sampling(max_tokens=4))
  probe_knowledge.main(config)
  said = capsys.readouterr().out
  assert 'left out: 1 questions that are longer' in said
  assert f'--data.conversations={tmp_path}/out/refusals.jsonl, and' in said


@pytest.mark.parametrize('row', [dict(question='Who?', answer='Bo', aliases='Bob'),
                                 dict(question='Who?', answer='Bo', snippet=5), dict(text=5)])
def test_rows_that_cannot_be_asked_are_told_of(row):
  with pytest.raises(InputError, match='a text|texts as'):
    facts.written([row], lambda texts: map(facts.gap, texts)) or facts.facts_of([row])


def test_the_key_of_an_endpoint_is_sent(opened, server, monkeypatch, tmp_path):
  monkeypatch.setenv('JUDGE_API_KEY', 'secret')
  (tmp_path / 'questions.jsonl').write_text('{"question": "Who sees it?", "answer": "oboe"}\n')
  probe_knowledge.main(Config(
      workdir=str(tmp_path), questions=f'{tmp_path}/questions.jsonl', samples=1, judge=server.url,
      sample=Sampling(max_tokens=4)))
  assert {key for _, key, *_ in server.seen} == {'Bearer secret'}


def test_the_model_itself_says_yes_or_no(opened, monkeypatch):
  itself, asked = judge.Itself(opened, Chat(opened.tokenizer)), []

  def score(params, requests):  # Yes where the last answer has an oboe
    asked.extend(opened.tokenizer.decode(prompt) for prompt, _ in requests)
    right = ['oboe' in text.split('Answer:')[-1] for text in asked[-len(requests)::2]]
    return [Score(np.float32([-1 if one == yes else -2]), False) for one in right
            for yes in (True, False)]

  assert all(len(one) == 1 for one in [itself([(OBOE, 'the bell ' * 60)])])  # cut to the context
  monkeypatch.setattr(itself._scorer, 'score', score)
  assert itself([(OBOE, 'the oboe'), (OBOE, 'the bell'), (NOBODY, 'the oboe')]) == [
      Verdict(True, True), Verdict(False, False), Verdict(False, True)]
  assert 'The answer is oboe.' in asked[0] and 'Text:' not in asked[-1].split('<|im_start|>')[-2]
