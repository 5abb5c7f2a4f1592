"""The terminal chat as a script types into it, on small random models."""

import dataclasses
import io
import json
import os
import pathlib
import select
import subprocess
import sys
import time

import jax
import pytest

from experiments import chat, workdir
from nanollm_jax import InputError
from nanollm_jax.model import transformer
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.sample import engine as engine_lib
from nanollm_jax.text import chat as chat_lib, tokenizer as tokenizer_lib

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def talk(corpus, tmp_path, monkeypatch, capsys):
  """A function: lines typed and flags to what the terminal shows; the model is random."""
  tokenizer = tokenizer_lib.load(corpus / 'tokenizer.json')
  model = ModelConfig(depth=1, width=32, heads=2, context=96).resolve(tokenizer.size)
  opened = workdir.Opened(model, transformer.init(model, jax.random.key(0)), tokenizer)
  monkeypatch.setattr(chat.workdir, 'open_model', lambda *_, **__: opened)
  (tmp_path / 'pages.jsonl').write_text('{"title": "Rivers", "text": "The river is blue."}\n')

  def run(*lines, base=False, **flags):
    (tmp_path / 'run.flags').write_text('--data.documents=x' if base else '--data.conversations=x')
    monkeypatch.setattr(sys, 'stdin', io.StringIO(''.join(line + '\n' for line in lines)))
    flags.setdefault('sample', engine_lib.Sampling(max_tokens=12, temperature=1.0))
    chat.main(chat.Config(init_from=str(tmp_path), pages=f'{tmp_path}/pages.jsonl', **flags))
    return capsys.readouterr().out
  run.tokenizer = tokenizer
  return run


def answers(monkeypatch, tokenizer, *parts):
  """Puts what the model answers in place of the engine's stream; collects its prompts and calls."""
  seen = []

  def stream(self, params, prompt, sampling, calls=()):
    seen.append((prompt, sampling, calls))
    for token in parts[(len(seen) - 1) % len(parts)]:
      yield [token]
  monkeypatch.setattr(engine_lib.Engine, 'stream', stream)
  return seen


@pytest.mark.slow
def test_a_random_model_talks_and_a_session_is_kept_and_loaded(talk, tmp_path):
  out = talk('/help', 'the red', 'a dog', f'/save {tmp_path}/kept.jsonl', '/quit', 'never read')
  assert '/retry' in out and '> the red\n' in out and '> never read' not in out
  row = json.loads((tmp_path / 'kept.jsonl').read_text())
  assert [message['role'] for message in row['messages']] == ['user', 'assistant'] * 2
  assert row['messages'] == chat_lib.canonical(row['messages'])
  shown = talk(f'/load {tmp_path}/kept.jsonl', '/undo', '/undo', '/undo', system='Be brief.')
  assert 'user: the red' in shown and '(taken back: a dog)' in shown
  assert 'error: nothing has been said yet.' in shown


def test_tools_run_and_are_shown(talk, monkeypatch):
  """The engine itself, forced to sample a call by its logits, is tested in tests/sample."""
  tokenizer = talk.tokenizer
  words = chat_lib.Chat(tokenizer)
  call = words.render([{'role': 'user', 'content': ''}, {'role': 'assistant', 'content': [
      {'type': 'text', 'text': 'It is '}, {'type': 'tool_call', 'text': '6 * 7', 'name': 'python'},
      {'type': 'tool_output', 'text': '42'}, {'type': 'text', 'text': '42 – é👍.'}]}]).ids
  call = call[call.index(tokenizer.special['<|im_sep|>'], 5) + 1:-1]
  seen = answers(monkeypatch, tokenizer, call)
  out = talk('what', '/show')
  assert 'It is [python: 6 * 7] [output: 42] 42 – é👍.\n' in out
  assert 'assistant: It is [python: 6 * 7] [output: 42] 42 – é👍.\n' in out
  tools = {one.start: one for one in seen[0][2]}
  ask = lambda name, text: words.text(
      tools[words.fence('tool_call', name)[0]].run(tokenizer.encode(text)))
  assert ask('python', 'x = 6') == 'No output.' and ask('python', 'x * 7') == '42'
  assert ask('search', 'river') == 'The river is blue.'
  assert answers(monkeypatch, tokenizer, call) == [] and not talk('what', tools=()).count('Error')


def test_commands_change_what_the_model_is_asked(talk, monkeypatch):
  tokenizer = talk.tokenizer
  words = chat_lib.Chat(tokenizer)
  seen = answers(monkeypatch, tokenizer, tokenizer.encode('yes \x1b[2J'))
  out = talk('one', '/temperature 0', '/retry', '/temperature hot', '/top_k .5', '/top_p 7',
             '/system Be kind.', '/system', '/system Be brief.', 'two', '/clear', 'three',
             '/nonsense', '/load nowhere', '/save')
  parsed = [words.parse(prompt)[:-1] for prompt, *_ in seen]
  said = lambda *texts: [{'role': 'user' if k % 2 == 0 else 'assistant', 'content': text}
                         for k, text in enumerate(texts)]
  brief = [{'role': 'system', 'content': 'Be brief.'}]
  assert parsed == [said('one'), said('one'), [*brief, *said('one', 'yes \x1b[2J', 'two')],
                    [*brief, *said('three')]]
  assert [sampling.temperature for _, sampling, _ in seen] == [1, 0, 0, 0]
  assert len({sampling.seed for _, sampling, _ in seen}) == 4
  assert '\x1b' not in out and 'yes \ufffd[2J' in out
  for error in ('error: /temperature needs a number; it is 0.0 now',
                'error: /top_k needs a whole number; it is 0 now', '--sample.top_p=7.0 (above 0',
                'error: /nonsense is no command', 'error: /save needs a file', 'error: nowhere cannot be read'):
    assert error in out


def test_an_answer_that_is_not_asked_for_again_after_all_stays(talk, monkeypatch):
  def stopped(*_):
    raise KeyboardInterrupt
    yield
  seen = answers(monkeypatch, talk.tokenizer, talk.tokenizer.encode('yes'))
  out = talk('one', '/seed 1', '/retry', '/show')
  stream = chat.Engine.stream
  monkeypatch.setattr(chat.Engine, 'stream', lambda *args: stopped() if len(seen) == 3 else stream(*args))
  out = talk('one', '/retry', '/show')
  assert len(seen) == 3 and '(stopped)' in out and 'assistant: yes' in out


def test_history_is_cut_at_turns_and_a_message_that_does_not_fit_is_unsaid(talk, monkeypatch):
  tokenizer = talk.tokenizer
  words = chat_lib.Chat(tokenizer)
  seen = answers(monkeypatch, tokenizer, tokenizer.encode('a dog takes the red house'))
  out = talk(*(f'number {k}' for k in range(8)), '/show', system='Be kind.')
  last = words.parse(seen[-1][0])[:-1]
  assert last[0] == {'role': 'system', 'content': 'Be kind.'}
  assert last[1]['role'] == 'user' and last[-1]['content'] == 'number 7' and 2 < len(last) < 10
  assert all(len(prompt) <= 96 - 12 for prompt, *_ in seen)
  assert 'can no longer be seen' in out and out.count('user: number') == 8


def test_too_long_a_message_is_unsaid(talk):
  out = talk('bird ' * 200, '/undo')
  assert 'error: prompt 0 has' in out and 'error: nothing has been said yet.' in out


def test_a_base_model_continues_documents(talk, monkeypatch):
  tokenizer = talk.tokenizer
  seen = answers(monkeypatch, tokenizer, tokenizer.encode(' sees the é'))
  out = talk('the cat', 'a dog', '/retry', '/save x', base=True)
  assert 'is a base model' in out and '> the cat\nthe cat sees the é\n' in out
  assert [prompt for prompt, *_ in seen] == [
      [tokenizer.end, *tokenizer.encode(text)] for text in ('the cat', 'a dog', 'a dog')]
  assert 'error: /save x is no command for a base model' in out
  with pytest.raises(InputError, match='is a base model, which knows no --system'):
    talk(base=True, system='Be kind.')
  with pytest.raises(InputError, match='--tools has bash'):
    talk(tools=('bash',))


SLOWLY = '''
import fcntl, signal, sys, termios, time
from experiments import chat, workdir
from nanollm_jax.model.config import ModelConfig
from nanollm_jax.text import tokenizer

fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
folder, corpus = sys.argv[1:]
words = tokenizer.load(f'{corpus}/tokenizer.json')

class Engine:
  def __init__(self, *_, **__):
    pass
  def stream(self, params, prompt, sampling, calls):
    asked = chat.chat_lib.Chat(words).parse(prompt)[-2]['content']
    for word in f'{asked} is what was asked.'.split():
      if word == 'wait':
        print('~', end='', flush=True)
        time.sleep(60)
      yield words.encode(word + ' ')

model = ModelConfig(depth=1, width=32, heads=2, context=512).resolve(words.size)
chat.workdir.open_model = lambda *_, **__: workdir.Opened(model, None, words)
chat.Engine = Engine
chat.main(chat.Config(init_from=folder, tools=()))
'''


def test_on_a_terminal(corpus, tmp_path):
  """Ctrl-C stops an answer or drops a line, the arrow brings a line back, Ctrl-D ends."""
  pytest.importorskip('readline')
  pytest.importorskip('termios')
  (tmp_path / 'run.flags').write_text('--data.conversations=x')
  ours, theirs = os.openpty()
  child = subprocess.Popen(
      [sys.executable, '-c', SLOWLY, str(tmp_path), str(corpus)], cwd=ROOT, start_new_session=True,
      stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | {'TERM': 'xterm'})
  os.close(theirs)

  def typed(keys, until='\n> '):
    os.write(ours, keys)
    out = ''
    while not out.endswith(until):
      assert select.select([ours], [], [], 60)[0], out
      out += os.read(ours, 1000).decode().replace('\r\n', '\n')
    return out
  try:
    assert '/help lists' in typed(b'')
    assert typed(b'one\r') == 'one\none is what was asked. \n> '
    assert typed(b'now wait\r', until='~') == 'now wait\nnow ~'  # what has come is there to read
    assert '(stopped)' in typed(b'\x03')
    assert typed(b'wait\r', until='~') and '(stopped)' in typed(b'\x03')  # and is forgotten
    assert typed(b'never mind', until='mind')
    time.sleep(.3)  # readline must wait for a key again: Python cannot interrupt it before
    assert typed(b'\x03') == '\n> '
    shown = typed(b'/show\r').split('\n')[1:-1]
    assert [line.split('\x1b[0m')[-1].strip() for line in shown] == [
        'one', 'one is what was asked.', 'now wait', 'now']
    assert typed(b'\x1b[A' * 4 + b'\r').endswith('one is what was asked. \n> ')
    os.write(ours, b'\x04')
    assert child.wait(30) == 0
  finally:
    child.kill()
    child.wait()
    os.close(ours)
  history = (tmp_path / 'chat_history').read_text().splitlines()
  assert history == ['one', 'now wait', 'wait', '/show', 'one']


def test_tools_that_are_not_asked_for_are_those_that_there_can_be(corpus, tmp_path):
  tokenizer = tokenizer_lib.load(corpus / 'tokenizer.json')
  config = chat.Config(pages=f'{tmp_path}/none.jsonl')
  assert set(chat.tools_of(config, tokenizer)) == {'python'}
  plain = dataclasses.replace(tokenizer, special={tokenizer_lib.END: tokenizer.end})
  assert not chat.tools_of(config, plain)
  with pytest.raises(InputError, match='none.jsonl'):
    chat.tools_of(chat.Config(tools=('search',), pages=config.pages), tokenizer)
