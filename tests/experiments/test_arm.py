"""Arms of claims: one that learned other rows is never taken for this one."""

from experiments.lecture import arm


def test_rows_that_changed_throw_the_arm_away(tmp_path):
  path = arm.written(tmp_path / 'arm' / 'rows.jsonl', [{'a': 1}])
  (path.parent / 'checkpoint').write_text('')
  arm.written(path, [{'a': 1}])
  assert (path.parent / 'checkpoint').exists()
  arm.written(path, [{'a': 2}])
  assert path.read_text() == '{"a": 2}\n' and not (path.parent / 'checkpoint').exists()
