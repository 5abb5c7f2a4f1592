"""Tests of the two tokenizer experiments, run as a user runs them."""

import os
import pathlib
import subprocess
import sys

from experiments import tokenize

ROOT = pathlib.Path(__file__).parents[2]


def _run(*words, folder, given=''):
  return subprocess.run([sys.executable, '-m', *words], input=given, capture_output=True,
                        text=True, cwd=folder, env={**os.environ, 'PYTHONPATH': str(ROOT)})


def test_train_then_show(tmp_path):
  (tmp_path / 'corpus.txt').write_text('\n'.join(
      f'Line {k}: the quick brown fox jumps over {k * 7919} lazy dogs and a few cats while it '
      'rains.\n' for k in range(2000)))
  trained = _run('experiments.train_tokenizer', '--documents=corpus.txt', '--workdir=runs/tok',
                 '--tokenizer.vocabulary=320', folder=tmp_path)
  assert trained.returncode == 0 and 'bytes per token on' in trained.stdout
  assert (tmp_path / 'runs/tok/run.flags').read_text().count('--tokenizer.vocabulary=320') == 1
  shown = _run('experiments.tokenize', ' the fox 42', folder=tmp_path)
  split, ids, summary = shown.stdout.splitlines()
  assert split == ' the| fox| |4|2' and len(ids.split()) == 5
  assert summary == '5 tokens, 11 bytes, 2.20 bytes a token'
  piped = _run('experiments.tokenize', folder=tmp_path, given=' the fox 42')
  assert piped.stdout == shown.stdout


def test_without_a_tokenizer_one_sentence_says_what_to_do(tmp_path):
  out = _run('experiments.tokenize', 'hi', folder=tmp_path)
  assert out.returncode == 1 and not out.stdout
  assert out.stderr.startswith('error: there is no runs/*/tokenizer.json yet')
  assert len(out.stderr.strip().splitlines()) == 1


def test_showing_tokens_loads_no_jax():
  code = 'import sys, experiments.tokenize; print("jax" in sys.modules, "grain" in sys.modules)'
  out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
  assert out.stdout.split() == ['False', 'False']


def test_render_escapes_what_cannot_be_shown():
  tokens = [b'a', b'\xc3', b'\n', b' \x1b[31m']
  assert tokenize.render(tokens, False) == 'a|\\xc3|\\n| \\x1b[31m'
  coloured = tokenize.render(tokens, True)
  assert coloured.count('\x1b[0m') == 4 and '\x1b[31m' not in coloured
