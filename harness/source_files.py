"""Where answers are read from: a run's folder, a baseline, an official answer file."""

from __future__ import annotations

from pathlib import Path

from harness.errors import BadInput
from harness.sources import Source


def read_source(path: Path, words: bool = True) -> Source:
    """The answers in a run's folder, a baseline file or an official answer file.

    Args:
        path: of either.
        words: whether questions and responses are wanted from a run, which take most of the time.

    Raises:
        BadInput: there is neither, or it holds no answer.
    """
    from harness.answers import model_of, read_answers
    from harness.baseline import is_baseline, read_baseline
    from harness.jsonfiles import read_json
    from harness.run import read_run

    if not path.exists():
        raise BadInput(f"{path}: no such file or folder; name a run's folder or an answer file")
    if path.is_file():
        content, _ = read_json(path)
        if is_baseline(content):
            return read_baseline(path, content)
        return Source(path, {model_of(path): read_answers(path)})
    manifest, answers = read_run(path, words)
    answers = {model: given for model, given in answers.items() if given}
    if not answers:
        raise BadInput(f"{path}: the run holds no answer yet; run it again to continue it")
    return Source(path, answers, manifest)
