"""Formats of conversations and rankings that others publish, told by their shape, as messages.

The rules are those of the publishers' own pages: oasst1, UltraChat, ShareGPT, Alpaca, HH-RLHF and
GSM8K, and pairs as TRL and UltraFeedback have them; besides there are our own {"messages"} and
{"prompt", "completions"}, the best first or as "ranks" says (1 is the best), with the "gold" score
of each where it is known.
"""

import io
import json
import math
import pathlib
import re
from typing import Any, Callable, Iterator, NamedTuple, Sequence

from nanollm_jax import InputError
from nanollm_jax.text import chat

Messages = list[chat.Message]
Reject = Callable[[pathlib.Path, int, str, Any], None]  # file, line, reason, row

_MARKER = re.compile(r'\n\n(Human|Assistant):')
_CALCULATION = re.compile(r'<<([^>]+)=([^=>]*)>>')
_ROLES = {'human': 'user', 'user': 'user', 'prompter': 'user', 'Human': 'user',
          'gpt': 'assistant', 'assistant': 'assistant', 'Assistant': 'assistant',
          'system': 'system'}


class Ranking(NamedTuple):
  """A prompt and its completions, the best first; the true score of each where it is known."""
  prompt: Messages
  completions: list[chat.Content]
  gold: list[float] | None = None


def refuse(path: pathlib.Path, line: int, reason: str, row: Any) -> None:
  """Stops at a bad line: the strict way to reject."""
  del row
  raise InputError(f'{path} line {line}: {reason} Mend or remove the line.')


def conversations(path: pathlib.Path, threads: str = 'best',
                  reject: Reject = refuse) -> Iterator[Messages]:
  """Reads the canonical conversations of a .jsonl, .jsonl.gz, .jsonl.zst or .json file.

  Each ends with an assistant's turn; what follows that in a published thread is left out.

  Args:
    path: the file.
    threads: of an oasst1 tree, its 'best' ranked thread or 'all' of them.
    reject: is told of every row that cannot be used: file, line (of a .json: row), reason, row.

  Raises InputError for a file that cannot be read.
  """
  yield from _converted(path, lambda row: _conversations(row, threads), reject)


def rankings(path: pathlib.Path, reject: Reject = refuse,
             make: Callable[[Ranking], Any] = lambda ranking: ranking) -> Iterator[Any]:
  """Reads the rankings of HH-RLHF, oasst1 or our own format; those with ties are rejected.

  An oasst1 tree gives one ranking for each of its prompts with two or more ranked answers.

  Args:
    path: the file.
    reject: as of `conversations`; a tree of which one ranking is rejected gives the others.
    make: what is made of each; one for which it raises InputError is rejected too.
  """
  yield from _converted(path, _rankings, reject, lambda found: make(_ranking(*found)))


def _converted(path: pathlib.Path, convert: Callable, reject: Reject,
               finish: Callable = lambda found: found) -> Iterator:
  """Yields finish(one) for all that convert(row) finds in the rows of a file."""
  for line, row in _trees_joined(path, _rows(path), reject):
    def tried(function: Callable, value: Any) -> list:
      try:
        return [function(value)]
      except (ValueError, TypeError, KeyError, AttributeError, IndexError,
              RecursionError) as error:
        wrong = 'not JSON' if isinstance(row, bytes) else 'not of the shape that it seems to have'
        reason = str(error) if isinstance(error, InputError) else f'it is {wrong} ({error!r}).'
        reject(path, line, reason, row.decode(errors='replace') if isinstance(row, bytes) else row)
        return []

    for parsed in tried(json.loads, row) if isinstance(row, bytes) else [row]:
      for found in tried(convert, parsed):
        for one in found:
          yield from tried(finish, one)


def _rows(path: pathlib.Path) -> Iterator[tuple[int, Any]]:
  """Yields (line, row) from 1, the row still as bytes where it is not JSON."""
  try:
    with path.open('rb') as file:
      if not file.read(1):
        raise InputError(f'{path} is empty: leave it out.')
  except OSError as error:
    raise InputError(f'{path} cannot be read ({error.strerror}): give a file, or the files of a '
                     "folder as 'FOLDER/*.jsonl'.") from error
  if path.suffix == '.json':
    try:
      rows = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
      raise InputError(f'{path} is not JSON ({error}): mend it, or call it .jsonl if it has a row '
                       'a line.') from error
    yield from enumerate(rows if isinstance(rows, list) else [rows], 1)
    return
  import pyarrow  # slow to import; it reads .gz and .zst of several members and sees cut ones
  number = 0
  try:
    with io.BufferedReader(pyarrow.input_stream(str(path))) as file:
      for number, line in enumerate(file, 1):
        if line.strip():
          yield number, _parsed(line)
  except OSError as error:
    raise InputError(f'{path} is cut short or damaged after line {number} ({error}): '
                     'fetch or build it again.') from error


def _parsed(line: bytes) -> Any:
  try:
    return json.loads(line)
  except (ValueError, RecursionError):
    return line


def _trees_joined(path: pathlib.Path, rows: Iterator[tuple[int, Any]],
                  reject: Reject) -> Iterator[tuple[int, Any]]:
  """Passes rows on, but oasst1's flat messages only once they are joined into trees."""
  flat: dict[str, tuple[int, dict]] = {}
  for line, row in rows:
    if (isinstance(row, dict) and 'replies' not in row and isinstance(row.get('message_id'), str)
        and isinstance(row.get('parent_id', 0), str | None)):
      flat[row['message_id']] = line, row | {'replies': []}
    else:
      yield line, row
  for line, row in flat.values():
    if row['parent_id'] in flat:
      flat[row['parent_id']][1]['replies'].append(row)
    elif row['parent_id'] is not None:
      reject(path, line, f'it answers {row["parent_id"]!r}, which is not in the file.', row)
  yield from (item for item in flat.values() if item[1]['parent_id'] is None)


def _conversations(row: dict, threads: str) -> list[Messages]:
  keys = row.keys() if isinstance(row, dict) else set()
  if 'messages' in keys:
    found = chat.canonical(row['messages'])
    if found[-1]['role'] != 'assistant':
      raise InputError('it ends with no turn of the assistant: there is nothing to learn from it.')
    return [found]
  if {'prompt', 'completions'} <= keys:
    best = _ranking(*_rankings(row)[0])
    return [[*best.prompt, _turn('assistant', best.completions[0])]]
  if root := _root(row):
    return [chat.canonical(_said(thread)) for thread in _threads(root, threads == 'best')]
  if 'data' in keys:
    roles = ('user', 'assistant') * len(row['data'])
    found = [_turn(role, text) for role, text in zip(roles, row['data'])]
  elif 'conversations' in keys:
    found = [_turn(_ROLES[turn['from']], turn['value']) for turn in row['conversations']]
  elif {'instruction', 'output'} <= keys:
    blank = '\n\n' if row.get('input') else ''
    found = [_turn('user', row['instruction'] + blank + (row.get('input') or '')),
             _turn('assistant', row['output'])]
  elif 'chosen' in keys:
    found = _hh(row['chosen'])
  elif {'question', 'answer'} <= keys:
    found = [_turn('user', row['question']), _turn('assistant', _calculated(row['answer']))]
  else:
    raise InputError(f'it is in no known format (its fields: {", ".join(keys) or "none"}).')
  return [chat.canonical(_whole(found))]


def _turn(role: str, content: Any) -> chat.Message:
  return {'role': role, 'content': content}


def _whole(turns: Messages) -> Messages:
  """Leaves out an assistant's turn that answers nothing and turns that nothing answers."""
  start = 1 if turns and turns[0]['role'] == 'system' else 0
  if turns[start:] and turns[start]['role'] == 'assistant':
    turns = turns[:start] + turns[start + 1:]
  while turns and turns[-1]['role'] != 'assistant':
    turns = turns[:-1]
  return turns


def _calculated(answer: str) -> list[dict[str, str]]:
  """GSM8K's `<<12/60=0.2>>` as a call of python with 12/60 and its output 0.2."""
  *pieces, rest = _CALCULATION.split(answer)
  parts = []
  for text, expression, result in zip(pieces[::3], pieces[1::3], pieces[2::3]):
    parts += [{'type': 'text', 'text': text},
              {'type': 'tool_call', 'name': 'python', 'text': expression},
              {'type': 'tool_output', 'text': result}]
  return [*parts, {'type': 'text', 'text': rest}]


def _root(row: Any) -> dict | None:
  """The first message of an oasst1 tree, if the row is one."""
  root = row.get('prompt', row) if isinstance(row, dict) else None
  return root if isinstance(root, dict) and 'replies' in root else None


def _replies(node: dict) -> list[dict]:
  """The replies that oasst1's reviewers let stand, the best first and the unranked last."""
  stand = [reply for reply in node.get('replies') or []
           if not reply.get('deleted') and reply.get('review_result') is not False]
  return sorted(stand, key=lambda reply: (reply.get('rank') is None, reply.get('rank') or 0))


def _threads(root: dict, best: bool) -> list[list[dict]]:
  """Threads from the root to a leaf, each cut after its last answer and each once."""
  found: list[list[dict]] = []

  def walk(node: dict, thread: list[dict], answered: int) -> None:
    thread = [*thread, node]
    answered = len(thread) if node['role'] == 'assistant' else answered
    replies = _replies(node)
    for reply in replies[:1] if best else replies:
      walk(reply, thread, answered)
    if not replies and answered and thread[:answered] not in found:
      found.append(thread[:answered])

  walk(root, [], 0)
  if not found:
    raise InputError('it has no answer that was left standing.')
  return found


def _said(thread: list[dict]) -> Messages:
  return [_turn(_ROLES[node['role']], node['text']) for node in thread]


def _rankings(row: Any) -> list[tuple]:
  """What `_ranking` takes, of each ranking in a row."""
  keys = row.keys() if isinstance(row, dict) else set()
  if {'chosen', 'rejected'} <= keys:
    better, worse = (_thread(row.get('prompt'), row[key]) for key in ('chosen', 'rejected'))
    if better[:-1] != worse[:-1] or better[-1] == worse[-1]:
      raise InputError('it has a chosen and a rejected thread that do not differ in just the last '
                       'answer.')
    return [(better[:-1], [better[-1]['content'], worse[-1]['content']])]
  if {'prompt', 'completions'} <= keys:
    return [tuple(row.get(key) for key in ('prompt', 'completions', 'ranks', 'gold'))]
  if root := _root(row):
    return _sibling_rankings(root, [])
  raise InputError(f'it holds no ranking (its fields: {", ".join(keys) or "none"}).')


def _ranking(prompt: Messages, contents: list[chat.Content], ranks: Sequence[float] | None = None,
             gold: list[float] | None = None) -> Ranking:
  """The ranking of contents, which stand in the order of their ranks where these are not given."""
  if not isinstance(prompt, list) or not isinstance(contents, list) or len(contents) < 2:
    raise InputError('it must have a prompt of messages and two or more completions.')
  ranks = range(len(contents)) if ranks is None else [float(rank) for rank in ranks]
  gold = None if gold is None else [float(score) for score in gold]
  if ({len(ranks), len(contents if gold is None else gold)} != {len(contents)}
      or not all(map(math.isfinite, [*ranks, *(gold or [])]))):
    raise InputError('it must have one finite number a completion in "ranks" and "gold".')
  if len({*ranks}) < len(ranks):
    raise InputError('it has a tie: two completions have the same rank.')
  threads = [chat.canonical([*prompt, _turn('assistant', content)]) for content in contents]
  answers = [thread[-1]['content'] for thread in threads]
  if any(answer in answers[:at] for at, answer in enumerate(answers)):
    raise InputError('it has the same completion twice.')
  order = sorted(range(len(ranks)), key=ranks.__getitem__)
  return Ranking(threads[0][:-1], [answers[at] for at in order],
                 gold and [gold[at] for at in order])


def _thread(prompt: Any, answer: Any) -> Messages:
  """One side of a pair: HH-RLHF's text, messages, or an answer to a prompt of either kind."""
  if prompt is None:
    return _hh(answer) if isinstance(answer, str) else chat.canonical(answer)
  asked = [_turn('user', prompt)] if isinstance(prompt, str) else chat.canonical(prompt)
  said = [_turn('assistant', answer)] if isinstance(answer, str) else answer
  repeated = isinstance(said, list) and len(said) > 1  # the prompt stands before the answer too
  return chat.canonical(said if repeated or not isinstance(said, list) else asked + said)


def _hh(text: str) -> Messages:
  before, *pieces = _MARKER.split(text)
  if before.strip() or not pieces or pieces[-2] != 'Assistant':
    raise InputError('it has a thread that does not go from "\\n\\nHuman:" to "\\n\\nAssistant:".')
  return [_turn(_ROLES[name], said.strip()) for name, said in zip(pieces[::2], pieces[1::2])]


def _sibling_rankings(node: dict, before: list[dict]) -> list[tuple]:
  """The rankings of a tree's prompts, from its root on; a tree may have none."""
  thread, replies = [*before, node], _replies(node)
  ranked = [reply for reply in replies if reply.get('rank') is not None]
  found = []
  if node['role'] == 'prompter' and len(ranked) > 1:
    found.append((_said(thread), [reply['text'] for reply in ranked],
                  [reply['rank'] for reply in ranked]))
  return found + [ranking for reply in replies for ranking in _sibling_rankings(reply, thread)]
