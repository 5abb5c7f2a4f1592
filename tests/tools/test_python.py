"""Tests of the model's Python: what it answers, and fifty ways out that lead nowhere."""

import concurrent.futures
import pathlib
import subprocess
import sys
import time

import pytest

from nanollm_jax import InputError
from nanollm_jax.tools.python import Python

SECONDS = 0.3


@pytest.fixture(scope='module')
def python():
  with Python(seconds=SECONDS) as tool:
    yield tool


@pytest.mark.parametrize('code, answer', [
    ('6 * 7', '42'),
    ('x = 6; x * 7;  # the answer', '42'),
    ('x = 6\r\nx * 7\r\n', '42'),
    ('print("a")\n"b"', 'a\nb'),
    ('(1,\n 2)', '(1, 2)'),
    ('s = "é"; """a\n""" + s', 'a\né'),
    ('"....".count(".")', '4'),
    ('class A:\n  def __repr__(self): return "me"\nA()', 'me'),
    ('"\\d"', '\\d'),
    ('print(3)', '3'),
    ('x = 3', 'No output.'),
    ('None', 'No output.'),
    ('', 'No output.'),
    ('# nothing', 'No output.'),
    ('7' + ' ' * 9999, '7'),
    ('7' + ' ' * 10_000, 'Error: the code is longer than 10000 characters'),
    ('1 / 0', 'Error: ZeroDivisionError: division by zero'),
    ('print("lost"); 1 / 0', 'Error: ZeroDivisionError: division by zero'),
    ('raise ValueError("two\\nlines")', 'Error: ValueError: two lines'),
    ('print(\n3', 'Error: SyntaxError: unexpected EOF while parsing'),
    ('1, 2)', 'Error: SyntaxError: Expected a statement'),
    ('1 +', 'Error: SyntaxError: Expected an expression'),
    ('x = "\ud800"',
     'Error: SyntaxError: source code is not valid UTF-8 (contains lone surrogates)'),
])
def test_answers_what_was_printed_then_the_last_value(python, code, answer):
  assert python(code) == answer


TOO_LONG = 'Error: TimeoutError: more than 0.3 seconds'
TOO_BIG = 'Error: MemoryError: more than 256 MB, or 10 MB printed'
NO_MODULE = 'Error: ModuleNotFoundError'
ABSENT = 'Error: NameError'
HIDDEN = 'Error: AttributeError'
DENIED = 'Error: PermissionError'
TOO_DEEP = 'Error: RecursionError'
DOUBLED = 'x = []\nfor i in range(60): x = [x, x]\n'
ESCAPES = [
    # files
    ('open("/etc/passwd").read()', DENIED),
    ('open("escaped", "w").write("a")', DENIED),
    ('import os\nos.listdir("/")', DENIED),
    ('import os\nos.remove("/etc/passwd")', DENIED),
    ('import pathlib\npathlib.Path("/proc/self/environ").read_text()', DENIED),
    # the system
    ('import os\nos.system("touch escaped")', HIDDEN),
    ('import os\nos.getenv("HOME")', 'Error: RuntimeError'),
    ('import os\nos.environ', 'Error: RuntimeError'),
    ('import os\nos.fork()', HIDDEN),
    ('import os\nos.kill(os.getppid(), 9)', HIDDEN),
    ('import sys\nsys.modules', HIDDEN),
    ('import sys\nsys.setrecursionlimit(10**9)', HIDDEN),
    ('import subprocess', NO_MODULE),
    ('import ctypes', NO_MODULE),
    ('import socket', NO_MODULE),
    ('import urllib.request', NO_MODULE),
    ('import pickle', NO_MODULE),
    ('import importlib', NO_MODULE),
    ('import builtins', NO_MODULE),
    ('import pydantic_monty', NO_MODULE),
    ('__import__("os").system("ls")', ABSENT),
    ('exit()', ABSENT),
    ('raise KeyboardInterrupt', 'Error: KeyboardInterrupt'),
    ('raise SystemExit', 'Error: SystemExit'),
    # walks through classes and frames
    ('().__class__.__bases__[0].__subclasses__()', HIDDEN),
    ('object.__subclasses__()', HIDDEN),
    ('getattr((), "__cl" + "ass__")', HIDDEN),
    ('"{0.__class__}".format(3)', HIDDEN),
    ('(lambda: 0).__globals__', HIDDEN),
    ('print.__self__', HIDDEN),
    ('eval("().__class__")', HIDDEN),
    ('exec("import socket")', NO_MODULE),
    ('compile("1", "", "eval")', ABSENT),
    # time
    ('while True: pass', TOO_LONG),
    ('while True:\n  try:\n    while True: pass\n  except BaseException: pass', TOO_LONG),
    ('import time\nwhile True: time.sleep(9)', TOO_LONG),
    ('import time\ntime.sleep(9)', 'No output.'),
    ('import asyncio\nasyncio.run(asyncio.sleep(9))', 'No output.'),
    ('sum(range(10**12))', TOO_LONG),
    ('import itertools\nlist(itertools.permutations(range(12)))', 'Error: '),
    ('import re\nre.match("(a+)+$", "a" * 40 + "b")', 'No output.'),
    ('import math\nmath.factorial(10**7)', TOO_LONG),
    ('10**10**8', TOO_LONG),
    ('9**9**7 % 10', TOO_LONG),
    ('print("first")\n10**10**8', TOO_LONG),
    (f'{DOUBLED}x', TOO_LONG),
    (f'{DOUBLED}str(x)', TOO_LONG),
    (f'{DOUBLED}x\nif True:\n  x', 'No output.'),
    # memory
    ('[0] * 10**9', TOO_BIG),
    ('x = "a"\nwhile True: x += x', 'Error: '),
    ('2**10**12', TOO_BIG),
    ('1 << 10**11', TOO_BIG),
    ('"a".ljust(10**10)', TOO_BIG),
    ('print("%1000000000d" % 3)', TOO_BIG),
    # depth
    ('def f(): return f()\nf()', TOO_DEEP),
    ('x = []\nx.append(x)\nx', '[[['),
    ('import json\njson.loads("[" * 100000)', 'Error: json.JSONDecodeError'),
    ('(' * 9000, 'Error: SyntaxError'),
    ('-' * 9000 + '1', 'Error: SyntaxError'),
    ('1' + '+1' * 4999, 'Error: SyntaxError'),
    # floods
    ('for i in range(10**5): print("x" * 10)', 'xxxxxxxxxx\n'),
    ('print("x" * 10**8)', 'Error: '),
    ('while True: print("x" * 1000)', 'Error: '),
    ('2**20000', 'Error: ValueError'),
    ('raise ValueError("x" * 10**6)', 'Error: ValueError: xxx'),
    ('1 + ' * 5000 + '1', 'Error: the code is longer than 10000 characters'),
]


@pytest.mark.parametrize('code, answer', ESCAPES, ids=lambda text: repr(text[:40]))
def test_no_way_out(python, code, answer):
  start = time.perf_counter()
  text = python(code)
  assert time.perf_counter() - start < SECONDS + 1.5
  assert text.startswith(answer), text
  assert len(text) <= 2010
  assert python('6 * 7') == '42'
  assert not pathlib.Path('escaped').exists()


def test_a_long_answer_is_cut():
  with Python(output_chars=5) as python:
    assert python('"12345"') == '12345'
    assert python('"123456"') == '12345 ...'
    assert python('print("12345"); 6') == '12345 ...'


def test_the_heap_has_the_size_asked_for():
  with Python(memory_mb=8) as python:
    assert python('len("a" * 2 * 10**6)') == '2000000'
    assert python('len("a" * 10**7)') == 'Error: MemoryError: more than 8 MB, or 10 MB printed'


def test_the_same_code_gives_the_same_text(python):
  code = 'import random\nrandom.random(), {3, "a", 2.5}'
  assert len({python(code) for _ in range(5)}) == 1


def test_calls_know_nothing_of_each_other_and_a_session_remembers(python):
  one, other = python.session(), python.session()
  assert one('x = 3') == 'No output.'
  assert other('x') == python('x') == "Error: NameError: name 'x' is not defined"
  assert one('def double(a): return 2 * a') == 'No output.'
  assert one('double(x)') == '6'
  assert one('_ + 1') == '7'


@pytest.mark.parametrize('failing', ['x = 4; 1 / 0', 'x = 4\nwhile True: pass', 'x = 4; 10**10**8'])
def test_a_call_that_fails_leaves_its_session_as_it_was(python, failing):
  session = python.session()
  session('x = 3')
  assert session(failing).startswith('Error: ')
  assert session('x') == '3'


def test_many_threads_may_call_at_once(python):
  def ask(number):
    if number % 20 == 7:
      return python('while True: pass') == TOO_LONG
    return python(f'{number} * {number}') == str(number**2)

  sessions = [python.session() for _ in range(16)]  # more than there are workers, and none waits
  with concurrent.futures.ThreadPoolExecutor(16) as threads:
    assert all(threads.map(ask, range(100)))
    assert list(threads.map(lambda session: session('x = 1'), sessions)) == 16 * ['No output.']
    assert list(threads.map(lambda session: session('x'), sessions)) == 16 * ['1']


def test_a_program_that_does_not_close_it_ends_all_the_same():
  program = 'from nanollm_jax.tools.python import Python; print(Python()("6 * 7"))'
  done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, timeout=20)
  assert (done.stdout, done.returncode) == ('42\n', 0), done.stderr


@pytest.mark.parametrize('limit', ['seconds', 'memory_mb', 'output_chars'])
def test_limits_are_over_0(limit):
  with pytest.raises(InputError, match=limit):
    Python(**{limit: 0})
