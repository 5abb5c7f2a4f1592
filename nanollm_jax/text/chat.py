"""The conversation protocol: messages to token ids with a loss mask, and back.

A turn is `<|im_start|>` role `<|im_sep|>` content `<|im_end|>`, as on the lecture's slides; what an
assistant thinks, calls and is answered stands between specials of its own. Specials come from here
alone: content is encoded as ordinary text, so nothing that is written in it can forge a turn.
"""

import itertools
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Sequence

from nanollm_jax import InputError
from nanollm_jax.text.tokenizer import Tokenizer

Content = str | list[dict[str, str]]
Message = dict[str, Any]

_AFTER = {'nothing': ('system', 'user'), 'system': ('user',), 'user': ('assistant',),
          'assistant': ('user', 'tool'), 'tool': ('assistant', 'tool')}
ROLES = tuple(_AFTER)[1:]
# (type, name) of a part that is not text, and the word in its two specials
_FENCES = {('think', None): 'think', ('tool_call', 'python'): 'python',
           ('tool_call', 'search'): 'search', ('tool_output', None): 'output'}
_TEXT = ('text', None)
ERROR = 'Error:'  # how the answer of a tool begins that could not do what it was asked


class Rendered(NamedTuple):
  """A conversation as tokens: ids, mask (1 = learned) and whose each is, all of one length.

  roles has one of ROLES for each token, headers included; the output of a tool is 'tool' also
  where it stands in an assistant's turn.
  """
  ids: list[int]
  mask: list[int]
  roles: list[str]


class Call(NamedTuple):
  """A tool as the engine sees it: tokens in, tokens out.

  What stands between a sampled `start` and `end` goes to `run`, whose ids are forced in; `error`
  is forced in where a call is too long or one too many.
  """
  start: int
  end: int
  run: Callable[[list[int]], list[int]]
  error: list[int]


def canonical(messages: Sequence[Message]) -> list[Message]:
  """Checks messages and returns them in the form that `Chat.parse` gives back.

  In it content is a string, unless an assistant's turn has parts that are not text; of text parts,
  neighbours are merged and empty ones left out; other keys are gone. An optional system message
  comes first, then user and assistant in turns; a tool may answer the assistant. Raises InputError.
  """
  if not isinstance(messages, list | tuple) or not messages:
    raise InputError('a conversation must be a list of at least one message.')
  found, before = [], 'nothing'
  for number, message in enumerate(messages, 1):
    role = message.get('role') if isinstance(message, dict) else None
    if role not in _AFTER[before]:
      raise InputError(f'message {number} has the role {role!r} after {before}: there it must be '
                       f'{" or ".join(_AFTER[before])}.')
    try:
      found.append({'role': role, 'content': _canonical_content(message.get('content'), role)})
    except InputError as error:
      raise InputError(f'message {number} ({role}) {error}') from error
    before = role
  return found


def _canonical_content(content: Any, role: str) -> Content:
  if isinstance(content, str):
    return content
  if not isinstance(content, list):
    raise InputError('has no content that is a string or a list of parts.')
  parts: list[dict[str, str]] = []
  for part in content:
    if not isinstance(part, dict) or not isinstance(part.get('text'), str):
      raise InputError('has a part that is not {"type": ..., "text": a string}.')
    kind = part.get('type'), part.get('name')
    if kind != _TEXT and (role != 'assistant' or kind not in list(_FENCES)):
      raise InputError(f'has a part of type {kind[0]!r} and name {kind[1]!r}: text may stand '
                       'anywhere, think, tool_output and a tool_call of python or search in an '
                       'assistant\'s turn.')
    _append(parts, kind, part['text'])
  return _joined(parts)


def _append(parts: list[dict[str, str]], kind: tuple, text: str) -> None:
  if kind != _TEXT:
    parts.append({'type': kind[0], 'text': text} | ({'name': kind[1]} if kind[1] else {}))
  elif parts and parts[-1]['type'] == 'text':
    parts[-1]['text'] += text
  elif text:
    parts.append({'type': 'text', 'text': text})


def _joined(parts: list[dict[str, str]]) -> Content:
  only_text = all(part['type'] == 'text' for part in parts)
  return ''.join(part['text'] for part in parts) if only_text else parts


class Chat:
  """Renders and parses conversations with one tokenizer.

  start_of_turn, end_of_turn: ids of `<|im_start|>` and `<|im_end|>`, which stops the engine

  Raises InputError for a tokenizer without the marks of a turn, and, when a conversation needs
  them, for one without those of a part.
  """

  def __init__(self, tokenizer: Tokenizer):
    self.tokenizer = tokenizer
    self.start_of_turn, separator, self.end_of_turn = (
        self._special(f'im_{mark}') for mark in ('start', 'sep', 'end'))
    self._separator = separator
    self._headers = {role: [self.start_of_turn, *tokenizer.encode(role), separator]
                     for role in ROLES}
    here = {kind: word for kind, word in _FENCES.items() if f'<|{word}_end|>' in tokenizer.special}
    self._opens = {self._special(f'{word}_start'): kind for kind, word in here.items()}
    self._closes = {self._special(f'{word}_end'): kind for kind, word in here.items()}

  def _special(self, word: str) -> int:
    try:
      return self.tokenizer.special[f'<|{word}|>']
    except KeyError:
      raise InputError(f'the tokenizer has no <|{word}|>, which this conversation needs: use one '
                       'that experiments.train_tokenizer made.') from None

  def fence(self, kind: str, name: str | None = None) -> tuple[int, int]:
    """The ids on both sides of a part; InputError for one that there is not."""
    if (kind, name) not in _FENCES:
      raise InputError(f'there is no {kind} named {name!r}: a tool is python or search.')
    word = _FENCES[kind, name]
    return self._special(f'{word}_start'), self._special(f'{word}_end')

  def render(self, messages: Sequence[Message]) -> Rendered:
    """Ids of messages; of them the assistant's content and its `<|im_end|>` are learned.

    Outputs of tools are not. What is rendered of the first messages is a prefix of what is
    rendered of all. Raises InputError; see `canonical`.
    """
    ids, mask, roles = [], [], []

    def add(tokens: list[int], role: str, learned: bool = False) -> None:
      ids.extend(tokens)
      mask.extend([int(learned)] * len(tokens))
      roles.extend([role] * len(tokens))

    for message in canonical(messages):
      role, content = message['role'], message['content']
      add(self._headers[role], role)
      for part in [{'type': 'text', 'text': content}] if isinstance(content, str) else content:
        output = part['type'] == 'tool_output'
        add(self._part(part), 'tool' if output else role, role == 'assistant' and not output)
      add([self.end_of_turn], role, role == 'assistant')
    return Rendered(ids, mask, roles)

  def _part(self, part: dict[str, str]) -> list[int]:
    ids = self.tokenizer.encode(part['text'])
    if part['type'] == 'text':
      return ids
    start, end = self.fence(part['type'], part.get('name'))
    return [start, *ids, end]

  def prompt(self, messages: Sequence[Message]) -> list[int]:
    """Ids of messages that end with a user or a tool, and the header of the answer."""
    ids = self.render(messages).ids
    if messages[-1]['role'] not in ('user', 'tool'):
      raise InputError(f'the last message is of the {messages[-1]["role"]}: an answer needs a '
                       'message of a user or a tool before it.')
    return ids + self._headers['assistant']

  def parse(self, ids: Sequence[int]) -> list[Message]:
    """The messages of ids: `canonical` ones for what `render` made, the nearest for other ids.

    An unclosed turn is kept; ids outside turns, headers without a separator, specials that
    mean nothing where they stand and ids that the vocabulary has not are left out.
    """
    found, turn = [], None
    for token in [*ids, self.start_of_turn]:
      if token not in (self.start_of_turn, self.end_of_turn):
        if turn is not None:
          turn.append(token)
        continue
      if turn and self._separator in turn:
        at = turn.index(self._separator)
        role, content = self.text(turn[:at]), turn[at + 1:]
        found.append({'role': role, 'content': _joined(self.parse_turn(content))
                      if role == 'assistant' else self.text(content)})
      turn = [] if token == self.start_of_turn else None
    return found

  def parse_turn(self, ids: Sequence[int]) -> list[dict[str, str]]:
    """The parts of an assistant's turn from sampled ids, up to the first mark of a turn.

    A part that is not closed ends where the next opens or the ids end; otherwise as `parse`.
    """
    parts: list[dict[str, str]] = []
    kind, held = _TEXT, []
    for token in ids:
      if token in (self.start_of_turn, self.end_of_turn):
        break
      if token in self._opens or self._closes.get(token) == kind:
        _append(parts, kind, self.text(held))
        kind, held = self._opens.get(token, _TEXT), []
      else:
        held.append(token)
    _append(parts, kind, self.text(held))
    return parts

  def stream(self, chunks: Iterable[Sequence[int]]) -> Iterator[tuple[int, dict[str, str]]]:
    """Parts of an assistant's turn as its ids come: (number of the part, its new text).

    Texts of one number join to the part that `parse_turn` gives for all ids; a character whose
    bytes have not all come waits for them.
    """
    ids, last, shown = [], -1, 0
    for chunk in itertools.chain(chunks, [None]):
      ids += chunk or []
      parts = self.parse_turn(ids)
      for number in range(max(last, 0), len(parts)):
        text = parts[number]['text']
        if chunk is not None and number == len(parts) - 1:
          text = text.rstrip('\ufffd')  # it may become a character yet
        since = shown if number == last else 0
        if number > last or len(text) > since:
          yield number, parts[number] | {'text': text[since:]}
        last, shown = number, max(since, len(text))

  def visible(self, ids: Sequence[int]) -> str:
    """What a user or a grader sees of sampled ids: their text without thoughts, calls, outputs."""
    return ''.join(part['text'] for part in self.parse_turn(ids) if part['type'] == 'text')

  def text(self, ids: Sequence[int]) -> str:
    """Decodes the ordinary ones of any ids."""
    lengths = self.tokenizer.byte_lengths
    return self.tokenizer.decode([token for token in ids
                                  if 0 <= token < len(lengths) and lengths[token]])


def bind(chat: Chat, functions: dict[str, Callable[[str], str]],
         limit: int = 200) -> tuple[Call, ...]:
  """Makes tools for the engine from functions by name: 'python', 'search'.

  A function gets the text of a call; its result, or what it raises, comes back as an output of
  at most `limit` tokens between its two specials. Raises InputError for another name or missing
  specials.
  """
  before, after = chat.fence('tool_output')

  def output(text: str) -> list[int]:
    return [before, *chat.tokenizer.encode(text)[:limit], after]

  def call(name: str, function: Callable[[str], str]) -> Call:
    def run(ids: list[int]) -> list[int]:
      try:
        return output(function(chat.text(ids)))
      except Exception as error:  # a tool never fails silently, and never ends a batch
        return output(f'{ERROR} {error}')

    return Call(*chat.fence('tool_call', name), run,
                output(f'{ERROR} this call is too long, or one too many.'))

  return tuple(call(name, function) for name, function in functions.items())
