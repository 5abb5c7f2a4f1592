"""Launchers of clusters: the commands they give, to programs that only write them down."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[1]
WORDS = ['experiments.pretrain', '--flagfile=a.flags', '--prompts=Once upon,It\'s "so"']
# Writes its words down and answers as the test has laid down in files.
STUB = '''#!/bin/bash
name=$(basename "$0"); folder=$(dirname "$0")/..
printf '%s' "$name" >> "$folder/log"; printf '\\x1f%s' "$@" >> "$folder/log"
printf '\\x1e' >> "$folder/log"
for answer in "$folder/answers"/*; do  # a file is used once; its first line is a pattern
  [ -e "$answer" ] || continue
  if [[ "$name $*" =~ $(head -n 1 "$answer") ]]; then
    code=$(sed -n 2p "$answer"); sed 1,2d "$answer" >&$((code ? 2 : 1)); rm "$answer"; exit "$code"
  fi
done
[ -d "$folder/worker" ] || exit 0
cd "$folder/worker"; export HOME=$PWD  # what a slice of one worker does
case "$*" in
  *" describe "*) echo READY ;;
  *" scp "*) cp "$folder/code.tgz" nanollm.tgz ;;
  *" ssh "*) words=${!#}; exec bash -c "${words#--command=}" ;;
esac
'''
PYTHON = '''#!/bin/bash
[ "$1" = -c ] && exec {python} "$@"
[ "$2" = pip ] && exit
echo "$$ $JAX_NUM_PROCESSES $JAX_PROCESS_ID $JAX_COORDINATOR_ADDRESS $*" >> {log}
{behave}
'''


class Cluster:
  """Stub programs in a folder, what they answer, and what they were asked."""

  def __init__(self, folder: pathlib.Path):
    self.folder, self.said = folder, ''
    for name in ('bin', 'answers'):
      (folder / name).mkdir()
    for name in ('gcloud', 'srun', 'sbatch', 'squeue', 'scancel', 'ssh', 'sleep'):
      (folder / 'bin' / name).write_text(STUB)
      (folder / 'bin' / name).chmod(0o755)

  def answer(self, pattern: str, words: str = '', code: int = 0) -> None:
    number = len(list((self.folder / 'answers').iterdir()))
    (self.folder / 'answers' / f'{number:02d}').write_text(
        f'{pattern}\n{code}\n' + (words and words + '\n'))

  def run(self, *words: str, **settings: str) -> list[list[str]]:
    """What a launcher asks of the stubs, but for sleep."""
    (self.folder / 'log').write_text('')
    done = subprocess.run(
        ['bash', *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
        env=os.environ | {'PATH': f'{self.folder}/bin:{os.environ["PATH"]}',
                          'TMPDIR': str(self.folder)} | settings)
    self.said, self.code = done.stdout + done.stderr, done.returncode
    calls = [line.split('\x1f') for line in (self.folder / 'log').read_text().split('\x1e')]
    return [call for call in calls if call[0] in ('gcloud', 'srun', 'sbatch', 'squeue', 'scancel')]


@pytest.fixture
def cluster(tmp_path):
  return Cluster(tmp_path)


PLACE = dict(ZONE='us-east5-b', TYPE='v6e-16', PAUSE='0')


ABSENT = ("ERROR: (gcloud.compute.tpus) NOT_FOUND: Resource 'nanollm' was not found", 1)
ASKED = 'echo yes [|][|] echo no'  # whether a worker already does what is asked


def kinds(calls) -> list[str]:
  return [' '.join(call[3:5]) for call in calls]


def test_a_tpu_slice_is_made_installed_and_started(cluster):
  for kind, state in ((0, ABSENT), (1, ABSENT), (0, ABSENT), (1, ('WAITING_FOR_RESOURCES',)),
                      (0, ABSENT), (1, ('ACTIVE',)), (0, ('CREATING',)), (0, ('READY',))):
    cluster.answer(('tpu-vm describe', 'queued-resources describe')[kind], *state)
  cluster.answer(ASKED, 'no')
  calls = cluster.run('launch/tpu_vm.sh', *WORDS, **PLACE, BUCKET='mine', SPOT='1')
  assert cluster.code == 0, cluster.said
  assert [kind for kind in kinds(calls) if not kind.endswith('describe')] == [
      'queued-resources create', 'tpu-vm ssh', 'tpu-vm scp', *['tpu-vm ssh'] * 3]
  create, (_, install, start, look) = calls[2], (call for call in calls if call[4] == 'ssh')
  assert all('--zone=us-east5-b' in call for call in calls)
  assert {'--accelerator-type=v6e-16', '--runtime-version=v2-alpha-tpuv6e', '--spot'} < set(create)
  assert '--worker=all' in install and '--worker=all' in start and '--worker=0' in look
  mount = 'gcsfuse --implicit-dirs --rename-dir-limit=100000 mine runs'  # else no folder is renamed
  assert mount in install[-1] and 'install tpu' in install[-1]
  assert 'JAX_NUM_PROCESSES=auto' in start[-1] and 'tail -n 100 -F log' in look[-1]
  # The words pass through two shells unharmed: a stub for bash shows what supervise.sh is given.
  (cluster.folder / 'nanollm').mkdir()
  (cluster.folder / 'nanollm/launch').mkdir()
  (cluster.folder / 'nanollm/launch/supervise.sh').write_text('printf "%s\\n" "$@"; exit 7')
  subprocess.run(['bash', '-c', start[-1].removeprefix('--command=')], cwd=cluster.folder,
                 check=True)
  until = time.time() + 20
  while not (cluster.folder / 'nanollm/ended').exists() and time.time() < until:
    time.sleep(0.01)
  time.sleep(0.1)
  assert (cluster.folder / 'nanollm/log').read_text().splitlines() == WORDS
  assert (cluster.folder / 'nanollm/ended').read_text() == '7\n'
  packed = subprocess.run(['tar', '-tzf', cluster.folder / 'nanollm-nanollm.tgz'], text=True,
                          capture_output=True, check=True).stdout.splitlines()
  assert 'launch/supervise.sh' in packed and not any(name.startswith('runs/') for name in packed)


def test_a_preempted_slice_is_made_anew_and_a_broken_connection_is_not(cluster):
  for state in ('READY', 'READY', 'READY', 'PREEMPTED', 'PREEMPTED'):
    cluster.answer('tpu-vm describe', state)
  cluster.answer('tpu-vm describe', *ABSENT)
  cluster.answer('queued-resources describe', *ABSENT)
  cluster.answer('tpu-vm describe', 'READY')
  for answer in ('yes', 'yes', 'no'):
    cluster.answer(ASKED, answer)
  cluster.answer('tail -n', code=255)  # while the slice is ready: look again
  cluster.answer('tail -n', code=255)  # preempted
  cluster.answer('tail -n', code=0)
  calls = kinds(cluster.run('launch/tpu_vm.sh', *WORDS, **PLACE))
  assert cluster.code == 0, cluster.said
  assert [call for call in calls if not call.endswith('describe')] == [
      *['tpu-vm ssh'] * 4, 'queued-resources delete', 'queued-resources create',
      'tpu-vm ssh', 'tpu-vm scp', *['tpu-vm ssh'] * 3]


def test_the_end_of_an_experiment_is_the_end_of_the_launcher(cluster):
  for _ in range(2):
    cluster.answer('tpu-vm describe', 'READY')
  cluster.answer(ASKED, 'yes')
  cluster.answer('tail -n', code=1)
  cluster.run('launch/tpu_vm.sh', *WORDS, **PLACE)
  assert cluster.code == 1


@pytest.mark.parametrize('queued, states', [
    ('1', ['WAITING_FOR_RESOURCES', 'PROVISIONING']), ('0', ['CREATING', 'REPAIRING'])])
def test_a_slice_that_comes_is_waited_for(cluster, queued, states):
  for state in states:
    if queued == '1':
      cluster.answer('tpu-vm describe', *ABSENT)
    cluster.answer(('tpu-vm', 'queued-resources')[int(queued)] + ' describe', state)
  cluster.answer('tpu-vm describe', 'READY')
  cluster.answer(ASKED, 'no')
  calls = kinds(cluster.run('launch/tpu_vm.sh', *WORDS, **PLACE, QUEUED=queued))
  assert cluster.code == 0 and all(f'nanollm: {state}' in cluster.said for state in states)
  assert [call for call in calls if not call.endswith('describe')] == [
      'tpu-vm ssh', 'tpu-vm scp', *['tpu-vm ssh'] * 3]


def test_a_slice_whose_preemption_left_only_its_queued_resource_is_made_anew(cluster):
  for state in ('SUSPENDED',), ABSENT:
    cluster.answer('tpu-vm describe', *ABSENT)
    cluster.answer('queued-resources describe', *state)
  cluster.answer('tpu-vm describe', 'READY')
  cluster.answer(ASKED, 'no')
  calls = kinds(cluster.run('launch/tpu_vm.sh', *WORDS, **PLACE))
  assert cluster.code == 0
  assert [call for call in calls if call.startswith('queued') and not call.endswith('describe')] == [
      'queued-resources delete', 'queued-resources create']


def test_a_network_that_breaks_is_waited_for(cluster):
  broken = 'ERROR: (gcloud.compute.tpus.tpu-vm.describe) There was a problem reaching the server', 1
  cluster.answer('tpu-vm describe', 'READY')
  for answer in (broken, broken, ('READY',), ('READY',)):
    cluster.answer('tpu-vm describe', *answer)
  for answer in (('yes',), ('ssh: connect: no route', 255), ('yes',)):
    cluster.answer(ASKED, *answer)
  cluster.answer('tail -n', code=255)
  cluster.answer('tail -n', code=0)
  calls = cluster.run('launch/tpu_vm.sh', *WORDS, **PLACE)
  assert cluster.code == 0 and 'problem reaching' in cluster.said and 'no answer' in cluster.said
  assert set(kinds(calls)) == {'tpu-vm describe', 'tpu-vm ssh'}
  assert not any('supervise.sh experiments' in call[-1] for call in calls)
  cluster.answer('tpu-vm describe', 'PERMISSION_DENIED', 1)  # at the beginning: it is said
  assert len(cluster.run('launch/tpu_vm.sh', *WORDS, **PLACE)) == 1
  assert cluster.code == 1 and 'PERMISSION_DENIED' in cluster.said


@pytest.fixture
def worker(cluster):
  """A cluster with one worker that obeys; supervise.sh there does what the experiment is told to."""
  home, code = cluster.folder / 'worker', cluster.folder / 'code/launch'
  for folder in (home / '.local/bin', code):
    folder.mkdir(parents=True)
  (code / 'environment.sh').write_text('install() { [ ! -e ../broken ]; }')
  (code / 'supervise.sh').write_text('echo "begin $*" | tee -a ../began; eval "${@: -1}"')
  subprocess.run(['tar', '-czf', '../code.tgz', 'launch'], cwd=code.parent, check=True)
  for path in (home / '.local/bin/uv', cluster.folder / 'bin/python3'):
    path.write_text('#!/bin/sh')
    path.chmod(0o755)
  return cluster


def begin(worker, name: str, does: str) -> int:
  """Runs the launcher; returns how often an experiment has been started on the worker so far."""
  worker.run('launch/tpu_vm.sh', f'experiments.{name}', does, **PLACE)
  began = worker.folder / 'worker/began'
  return len(began.read_text().splitlines()) if began.exists() else 0


def test_a_slice_that_is_there_starts_what_it_does_not_do_already(worker):
  assert begin(worker, 'pretrain', 'exit 0') == 1 and worker.code == 0
  assert begin(worker, 'pretrain', 'exit 0') == 1 and worker.code == 0  # it has ended well
  assert 'begin experiments.pretrain' in worker.said
  assert begin(worker, 'sft', 'echo "it\'s"; exit 1') == 2 and worker.code == 1
  assert begin(worker, 'sft', 'echo "it\'s"; exit 1') == 3 and worker.code == 1  # not well
  assert begin(worker, 'sft', 'exit 0') == 4 and worker.code == 0  # the flag is mended
  (worker.folder / 'worker/broken').touch()
  assert begin(worker, 'rl', 'exit 0') == 4 and worker.code == 1
  (worker.folder / 'worker/broken').unlink()
  assert begin(worker, 'rl', 'exit 0') == 5 and worker.code == 0
  (worker.folder / 'worker/nanollm/ended').unlink()  # the machine began anew: nothing runs
  assert begin(worker, 'rl', 'exit 0') == 6 and worker.code == 0


def test_another_command_takes_the_place_of_what_runs(worker):
  stay = 'trap "touch ../heard; exit 143" TERM; touch ../on; while :; do /bin/sleep 0.1; done'
  worker.answer('tail -n', code=130)  # Ctrl-C while it looks
  begin(worker, 'pretrain', stay)  # it may not have begun when the launcher ends
  assert worker.code == 130
  until = time.time() + 20
  while not (worker.folder / 'worker/on').exists() and time.time() < until:
    time.sleep(0.01)
  worker.answer('tail -n', 'the log')
  assert begin(worker, 'pretrain', stay) == 1 and worker.code == 0 and 'the log' in worker.said
  assert not (worker.folder / 'worker/heard').exists()
  assert begin(worker, 'sft', 'exit 0') == 2 and worker.code == 0
  assert (worker.folder / 'worker/heard').exists()


def test_an_error_while_the_connection_was_broken_is_told_and_not_repeated(worker):
  worker.answer('tail -n', code=255)
  assert begin(worker, 'sft', 'exit 3') == 1 and worker.code == 3


def test_dry_runs_ask_for_nothing_and_say_all(cluster):
  assert not cluster.run('launch/tpu_vm.sh', '--dry_run', *WORDS, **PLACE, QUEUED='0', PROJECT='p')
  said = re.findall(r'^gcloud compute tpus (\S+ \S+)', cluster.said, re.MULTILINE)
  assert said == ['tpu-vm create', 'tpu-vm scp', 'tpu-vm ssh', 'tpu-vm ssh', 'tpu-vm ssh']
  assert '--project=p' in cluster.said and '--version=v2-alpha-tpuv6e' in cluster.said
  assert not cluster.run('launch/slurm.sh', '--dry_run', *WORDS, NODES='2')
  assert cluster.said.startswith('sbatch ') and '--nodes=2' in cluster.said
  for launcher, said in (('tpu_vm', 'queued-resources delete nanollm'), ('slurm', 'scancel 7')):
    assert not cluster.run(f'launch/{launcher}.sh', '--dry_run', 'delete', '7', **PLACE)
    assert said in cluster.said


def test_status_and_delete(cluster):
  tpu = lambda word, **more: kinds(cluster.run('launch/tpu_vm.sh', word, **PLACE, **more))
  assert tpu('status') == ['queued-resources list', 'tpu-vm list']
  assert tpu('delete') == ['queued-resources delete']
  assert tpu('delete', QUEUED='0') == ['tpu-vm delete']
  assert cluster.run('launch/slurm.sh', 'status')[0][:2] == ['squeue', '--name=nanollm']
  assert cluster.run('launch/slurm.sh', 'delete', '12') == [['scancel', '12']]
  for launcher in ('tpu_vm', 'slurm'):
    assert not cluster.run(f'launch/{launcher}.sh', 'nonsense', **PLACE)
    assert cluster.code == 2 and f'bash launch/{launcher}.sh [--dry_run] status' in cluster.said


def test_slurm_runs_one_process_a_gpu_and_restarts_them_together(cluster):
  """The job's script is run as Slurm would run it, with a stub srun that is killed once."""
  (cluster.folder / 'venv/bin').mkdir(parents=True)
  python = cluster.folder / 'venv/bin/python'
  python.write_text(PYTHON.format(python=sys.executable, log=cluster.folder / 'ran', behave=''))
  python.chmod(0o755)
  settings = dict(NODES='2', GPUS='4', CPUS='6', VENV=str(cluster.folder / 'venv'),
                  SBATCH='--partition=gpu')
  (call,) = cluster.run('launch/slurm.sh', *WORDS, **settings)
  assert {'--nodes=2', '--ntasks-per-node=4', '--gpus-per-node=4', '--cpus-per-task=6', '--requeue',
          '--partition=gpu', '--signal=B:TERM@120'} < set(call)
  cluster.answer('srun', code=137)
  script = call[-1].removeprefix('--wrap=')
  calls = cluster.run('-c', script, **settings)
  assert cluster.code == 0 and 'ended with code 137' in cluster.said
  assert calls == [['srun', '--kill-on-bad-exit=0', '--ntasks=8', '--gpus-per-node=4',
                    '--cpus-per-task=6', str(python), '-m', *WORDS]] * 2


@pytest.fixture
def supervise(tmp_path):
  """A function that starts launch/supervise.sh over processes that behave in a given way."""
  (tmp_path / 'venv/bin').mkdir(parents=True)
  (tmp_path / 'quick').mkdir()
  (tmp_path / 'quick/sleep').write_text(
      f'#!/bin/sh\nexec {sys.executable} -c "import time; time.sleep($1 / 20)"')
  (tmp_path / 'quick/sleep').chmod(0o755)
  def start(behave: str, count: int = 2, words=WORDS, **settings: str) -> subprocess.Popen:
    python = tmp_path / 'venv/bin/python'
    python.write_text(PYTHON.format(python=sys.executable, log=tmp_path / 'ran', behave=behave))
    python.chmod(0o755)
    return subprocess.Popen(
        ['bash', 'launch/supervise.sh', *words], cwd=ROOT, stderr=subprocess.PIPE, text=True,
        env=os.environ | {'VENV': str(tmp_path / 'venv'), 'PROCESSES': str(count), 'GRACE': '20',
                          'PATH': f'{tmp_path}/quick:{os.environ["PATH"]}'} | settings)
  start.ran = lambda: [line.split(' ', 5) for line in (
      tmp_path / 'ran').read_text().splitlines()] if (tmp_path / 'ran').exists() else []
  return start


def test_all_processes_of_a_job_start_again_when_one_is_killed(supervise, tmp_path):
  process = supervise(f'[ -e {tmp_path}/second ] && exit 0; '
                      '[ "$JAX_PROCESS_ID" = 0 ] || exec sleep 600; '
                      f'sleep 6; touch {tmp_path}/second; kill -9 $$')
  _, said = process.communicate(timeout=30)
  assert process.returncode == 0 and 'ended with code 137' in said and 'it starts again' in said
  ran = supervise.ran()
  assert sorted(index for _, _, index, *_ in ran) == ['0', '0', '1', '1']
  assert len({address for *_, address, _, _ in ran}) == 2
  assert {count for _, count, *_ in ran} == {'2'}


@pytest.mark.parametrize('behave, code, lives', [('exit 1', 1, 1), ('exit 75', 75, 5)])
def test_an_error_is_not_repeated_and_short_lives_end(supervise, behave, code, lives):
  process = supervise(behave, count=1)
  process.communicate(timeout=60)
  assert process.returncode == code and len(supervise.ran()) == lives


def test_a_supervisor_that_is_stopped_hands_it_on(supervise, tmp_path):
  process = supervise(f'trap "echo $JAX_PROCESS_ID >> {tmp_path}/heard; exit 143" TERM; '
                      'sleep 600 > /dev/null 2>&1 & wait')
  until = time.time() + 20
  while len(supervise.ran()) < 2 and time.time() < until:
    time.sleep(0.01)
  time.sleep(0.3)
  process.send_signal(signal.SIGTERM)
  process.communicate(timeout=20)
  assert process.returncode == 143 and len(supervise.ran()) == 2
  assert sorted((tmp_path / 'heard').read_text().split()) == ['0', '1']


# Ends as srun does: its tasks are killed where it is told to stop, and hear what scancel sends.
SRUN = '''#!/bin/bash
echo "$$" > {folder}/task
trap "echo killed >> {folder}/heard; exit 137" TERM
trap "echo saved >> {folder}/heard; exit 143" USR1
/bin/sleep 20 > /dev/null 2>&1 & wait
'''
SCANCEL = '''#!/bin/bash
echo "scancel $*" >> {folder}/heard; kill -USR1 $(cat {folder}/task)
'''


def test_a_job_of_slurm_that_is_stopped_hands_it_to_the_tasks(supervise, tmp_path):
  for name, script in (('srun', SRUN), ('scancel', SCANCEL)):
    (tmp_path / 'quick' / name).write_text(script.format(folder=tmp_path))
    (tmp_path / 'quick' / name).chmod(0o755)
  process = supervise('', count=1, START='srun --ntasks=2', SLURM_JOB_ID='12')
  until = time.time() + 20
  while not (tmp_path / 'task').exists() and time.time() < until:
    time.sleep(0.01)
  time.sleep(0.3)
  process.send_signal(signal.SIGTERM)
  process.communicate(timeout=20)
  assert (tmp_path / 'heard').read_text().splitlines() == ['scancel --signal=TERM 12', 'saved']
  assert process.returncode == 143


def test_an_error_of_one_process_is_not_repeated_whatever_the_start_returns(supervise, tmp_path):
  """srun returns the largest exit code: here of another process, which has lost the first."""
  process = supervise('touch "$NANOLLM_ERROR"; exit 75', count=1)
  _, said = process.communicate(timeout=60)
  assert process.returncode == 1 and len(supervise.ran()) == 1 and not said
  assert [path.name for path in (tmp_path / 'venv').iterdir() if 'error' in path.name] == []


def test_an_older_bash_is_refused(tmp_path):
  """There `wait -n -p` fails at once, for ever."""
  script = (ROOT / 'launch/supervise.sh').read_text().replace('BASH_VERSINFO', 'PRETENDED')
  (tmp_path / 'supervise.sh').write_text(script)
  (tmp_path / 'environment.sh').write_text('echo it goes on; exit 0')
  done = subprocess.run(['bash', '-c', 'PRETENDED=(5 0); source "$0"', tmp_path / 'supervise.sh'],
                        capture_output=True, text=True)
  assert done.returncode == 1 and not done.stdout
  assert done.stderr.startswith('error: launch/supervise.sh needs bash 5.1 or newer, this is 5.')
  assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_supervisor_that_is_stopped_between_two_lives_starts_no_other(supervise, tmp_path, number):
  (tmp_path / 'quick/sleep').write_text(f'#!/bin/sh\ntouch {tmp_path}/pause; exec /bin/sleep 3')
  process = supervise('exit 75', count=1)
  until = time.time() + 20
  while not (tmp_path / 'pause').exists() and time.time() < until:
    time.sleep(0.01)
  process.send_signal(number)
  process.wait(timeout=20)
  assert process.returncode == 128 + number and len(supervise.ran()) == 1


SAVE = """
lives=$(wc -l < {folder}/ran)
mkdir -p {folder}/work/checkpoints/$((lives * 7)).orbax-checkpoint-tmp
((lives > {saving})) || mkdir {folder}/work/checkpoints/$((lives * 7))
((lives < 20)) || exit 0
exit 75
"""


@pytest.mark.parametrize('saving, code, lives', [(0, 75, 10), (3, 75, 13), (20, 0, 20)])
def test_long_lives_end_when_none_saves_a_checkpoint(supervise, tmp_path, saving, code, lives):
  (tmp_path / 'a.flags').write_text(f'# Comment\n--workdir={tmp_path}/work\n')
  (tmp_path / 'b.flags').write_text(f'--flagfile={tmp_path}/a.flags\n--fit.steps=3\n')
  words = (['--workdir', f'{tmp_path}/work'] if saving == 3 else
           ['--workdir=elsewhere', '--flagfile', f'{tmp_path}/b.flags'])
  process = supervise(SAVE.format(folder=tmp_path, saving=saving), count=1, SHORT='0',
                      words=['experiments.pretrain', *words])
  _, said = process.communicate(timeout=60)
  assert process.returncode == code and len(supervise.ran()) == lives
  assert ('saved nothing' in said) == (code == 75)


def test_long_lives_of_what_has_no_checkpoints_never_run_out(supervise, tmp_path):
  process = supervise(f'[ $(wc -l < {tmp_path}/ran) = 15 ] || exit 75', count=1, SHORT='0',
                      words=['experiments.none', '--flagfile=missing.flags'])
  _, said = process.communicate(timeout=60)
  assert process.returncode == 0 and len(supervise.ran()) == 15 and 'missing.flags' not in said
