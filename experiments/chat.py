"""Talks with a trained model in the terminal; a base model continues what is typed.

python -m experiments.chat --init_from=runs/sft
"""

import contextlib
import dataclasses
import json
import pathlib
import re
import sys
from typing import Any, Callable, Iterator

from rich.console import Console

from experiments import workdir
from nanollm_jax import InputError, flags
from nanollm_jax.sample.engine import Engine, Sampling
from nanollm_jax.text import chat as chat_lib
from nanollm_jax.text.tokenizer import Tokenizer
from nanollm_jax.tools.python import Python
from nanollm_jax.tools.search import Search

HELP = """\
/system TEXT   sets the system message; without a text, none
/retry         answers the last message anew
/undo          takes back the last message and its answer
/clear         begins a new conversation
/show          shows the conversation
/save FILE     adds the conversation to a file of rows, as experiments.sft reads them
/load FILE     goes on with the last conversation of such a file
/temperature X, /top_k N, /top_p X, /max_tokens N, /seed N: how answers are sampled
/quit          ends (so does Ctrl-D); Ctrl-C stops an answer, or drops what is typed"""
_CONTROL = re.compile(r'[\0-\x08\x0b-\x1f\x7f-\x9f]')  # what a text might do to the terminal


@dataclasses.dataclass(frozen=True)
class Config:
  """A conversation in the terminal.

  init_from: the workdir of a trained model.
  step: which checkpoint; unset means the newest, or the best where one is said to be.
  system: the system message.
  tools: what the model may call: python, search; empty for none. Unsaid, search needs --pages.
  pages: the JSON lines whose texts are searched.
  """
  init_from: str = 'runs/sft'
  step: int | None = None
  system: str = ''
  tools: tuple[str, ...] = ('python', 'search')
  pages: str = 'runs/world/pages.jsonl'
  sample: Sampling = Sampling(max_tokens=200, temperature=0.6)


class Talk:
  """A conversation with one model; in a base model's, each message is the start of a document."""

  def __init__(self, config: Config):
    self._model, self._params, self._tokenizer = workdir.open_model(
        config.init_from, step=config.step)
    self.base = '--data.documents' in (pathlib.Path(config.init_from) / 'run.flags').read_text()
    if self.base and config.system:
      raise InputError(f'--init_from={config.init_from} is a base model, which knows no --system: '
                       'leave it out, or give the workdir of a finetuned model.')
    self.sampling, self._answers = config.sample, 0
    self._console = Console(highlight=False)
    stop, self._calls = [self._tokenizer.end], ()
    if not self.base:
      self._chat = chat_lib.Chat(self._tokenizer)
      stop.append(self._chat.end_of_turn)
      self.tools = tools_of(config, self._tokenizer)
      if self.tools:
        self._calls = chat_lib.bind(self._chat, self.tools)
    self._engine = Engine(self._model, stop, slots=1, chunk=4)
    self.clear(config.system)

  def clear(self, system: str) -> None:
    """Begins a new conversation."""
    self.messages = [{'role': 'system', 'content': system}] * bool(system)

  @property
  def system(self) -> list[chat_lib.Message]:
    """The system message, if there is one."""
    return [message for message in self.messages[:1] if message['role'] == 'system']

  def undo(self) -> str:
    """Takes back the last message of the user, which it returns, and all that followed."""
    last = max((i for i, message in enumerate(self.messages) if message['role'] == 'user'),
               default=None)
    if last is None:
      raise InputError('nothing has been said yet.')
    said, self.messages = self.messages[last]['content'], self.messages[:last]
    return said

  def say(self, text: str) -> None:
    """Prints the answer to a message as it comes; Ctrl-C stops it, an InputError unsays it."""
    before = self.messages
    self.messages = [*before, {'role': 'user', 'content': text}]
    ids: list[int] = []
    try:
      prompt = self._prompt()
      sampling = dataclasses.replace(self.sampling, seed=self.sampling.seed + self._answers)
      room = min(sampling.max_tokens, self._model.context - len(prompt))
      chunks = self._engine.stream(self._params, prompt, sampling, self._calls)
      self._show(text, (ids.extend(chunk) or chunk for chunk in chunks))
      if len(ids) >= room:
        self.note(f'\n(cut off after {room} tokens)', end='')
    except InputError:
      self.messages = before
      raise
    except KeyboardInterrupt:
      self.note(' (stopped)')
      if not ids:  # nothing was answered, so nothing was asked
        self.messages = before
        return
    else:
      print()
    self._answers += 1
    if self.base:
      self.messages = self.messages[-1:]  # documents have nothing to do with each other
    else:
      self.messages.append({'role': 'assistant', 'content': self._chat.parse_turn(ids)})

  def _prompt(self) -> list[int]:
    if self.base:
      return [self._tokenizer.end, *self._tokenizer.encode(self.messages[-1]['content'])]
    room = min(self.sampling.max_tokens, self._model.context // 2)
    ids, left_out = fit(self._chat, self.messages, self._model.context - room)
    if left_out:
      self.note(f'(the context of {self._model.context} tokens is full: the first {left_out} '
                f'message{"s" * (left_out > 1)} can no longer be seen)')
    return ids

  def _show(self, text: str, chunks: Iterator[list[int]]) -> None:
    if self.base:
      self.note(text, end='')
      for piece in self._tokenizer.stream(chunks):
        self._out(piece)
      return
    self._show_parts(self._chat.stream(chunks))

  def _show_parts(self, pieces: Iterator[tuple[int, dict[str, str]]]) -> None:
    number, closing = -1, ''
    for at, part in pieces:
      dim = part['type'] != 'text'
      if at != number:
        name = part.get('name') or part['type'].removeprefix('tool_')
        self.note(closing + (f'[{name}: ' if dim else ''), end='')
        number, closing = at, '] ' if dim else ''
      self._out(part['text'], 'dim' if dim else None)
    self.note(closing, end='')

  def show(self) -> None:
    """Prints the conversation, of which a model may see the end only."""
    for message in self.messages:
      self.note(f'{message["role"]}: ', end='')
      content = message['content']
      self._show_parts(enumerate([{'type': 'text', 'text': content}]
                                 if isinstance(content, str) else content))
      print()

  def note(self, text: str, end: str = '\n') -> None:
    """Prints what nobody said, dimmed."""
    self._out(text + end, 'dim')

  def _out(self, text: str, style: str | None = None) -> None:
    self._console.out(_CONTROL.sub('\ufffd', text), style=style, end='')

  def command(self, line: str) -> None:
    """Does what a line that begins with a slash asks for; InputError where it cannot."""
    word, _, rest = line[1:].partition(' ')
    rest = rest.strip()
    match word:
      case 'help':
        self.note(HELP)
      case 'retry':
        before, said = self.messages, self.undo()
        left = self.messages
        try:
          self.say(said)
        finally:
          if self.messages is left:  # nothing was answered
            self.messages = before
      case 'undo':
        self.note(f'(taken back: {self.undo()})')
      case 'clear':
        self.clear(''.join(message['content'] for message in self.system))
      case 'show':
        self.show()
      case 'system' if not self.base:
        rest_of = self.messages[len(self.system):]
        self.clear(rest)
        self.messages += rest_of
      case 'save' | 'load' if not rest and not self.base:
        raise InputError(f'/{word} needs a file.')
      case 'save' | 'load' if not self.base:
        (self._save if word == 'save' else self._load)(rest)
      case 'max_tokens' | 'temperature' | 'top_k' | 'top_p' | 'seed':
        self._set(word, rest)
      case _:
        raise InputError(f'{line} is no command{" for a base model" * self.base}: /help lists '
                         'them.')

  def _set(self, name: str, value: str) -> None:
    now = getattr(self.sampling, name)
    try:
      number = type(now)(value)
    except ValueError:
      whole = 'whole ' * isinstance(now, int)
      raise InputError(f'/{name} needs a {whole}number; it is {now} now.') from None
    self.sampling = dataclasses.replace(self.sampling, **{name: number})

  def _save(self, path: str) -> None:
    row = json.dumps({'messages': chat_lib.canonical(self.messages)})
    try:
      with open(path, 'a', encoding='utf-8') as file:
        file.write(row + '\n')
    except OSError as error:
      raise InputError(f'{path} cannot be written ({error.strerror}).') from error
    self.note(f'(added to {path})')

  def _load(self, path: str) -> None:
    try:
      row = json.loads(pathlib.Path(path).read_text('utf-8').splitlines()[-1])
      self.messages = chat_lib.canonical(row['messages'])
    except OSError as error:
      raise InputError(f'{path} cannot be read ({error.strerror}).') from error
    except (ValueError, LookupError, TypeError) as error:
      raise InputError(f'{path} does not end in a row with messages: give a file of '
                       '/save.') from error
    self.show()


def fit(chat: chat_lib.Chat, messages: list[chat_lib.Message],
        most: int) -> tuple[list[int], int]:
  """A prompt of the system message and the newest turns in `most` tokens, and how many messages
  it leaves out; the last of the user is always there."""
  system = [message for message in messages[:1] if message['role'] == 'system']
  starts = [i for i, message in enumerate(messages) if message['role'] == 'user']
  for start in starts:
    ids = chat.prompt(system + messages[start:])
    if len(ids) <= most:
      break
  return ids, start - len(system)


def tools_of(config: Config, tokenizer: Tokenizer) -> dict[str, Callable[[str], str]]:
  """The tools of --tools; where these are not said, those that there can be.

  Python remembers over a conversation what it defined.
  """
  names = config.tools
  if names == Config.tools:
    names = names if '<|output_start|>' in tokenizer.special else ()
    names = [one for one in names if one != 'search' or pathlib.Path(config.pages).exists()]
  made: dict[str, Callable[[], Any]] = {
      'python': lambda: Python().session(), 'search': lambda: Search.from_jsonl(config.pages)}
  if unknown := set(names) - set(made):
    raise InputError(f'--tools has {min(unknown)}: give python, search or both.')
  return {name: made[name]() for name in names}


def lines(history: pathlib.Path) -> Iterator[str]:
  """What is typed, line by line, with the arrow keys' history on a terminal."""
  if not sys.stdin.isatty():
    for line in sys.stdin:
      print('> ' + line.rstrip('\n'))
      yield line
    return
  import readline  # changes what input() does  # pylint: disable=import-outside-toplevel
  with contextlib.suppress(OSError):  # there is none yet
    readline.read_history_file(history)
  try:
    while True:
      try:
        line = input('> ')
      except KeyboardInterrupt:  # as in a shell: the line is dropped, no more
        print()
        continue
      yield line
  except EOFError:
    print()
  finally:
    with contextlib.suppress(OSError):  # a workdir that may only be read
      readline.write_history_file(history)


def main(config: Config) -> None:
  talk = Talk(config)
  if talk.base:
    talk.note(f'{config.init_from} is a base model: it has had no conversations, and continues '
              'what you type as a document would go on. /help lists commands.')
  else:
    talk.note(f'{config.init_from} answers; tools: {", ".join(talk.tools) or "none"}. /help '
              'lists commands.')
  for line in lines(pathlib.Path(config.init_from) / 'chat_history'):
    line = line.strip()
    try:
      if line in ('/quit', '/exit'):
        break
      if line.startswith('/'):
        talk.command(line)
      elif line:
        talk.say(line)
    except InputError as error:
      talk.note(f'error: {error}')


if __name__ == '__main__':
  flags.run(main, Config)
