"""A GRPO step encodes an image once and computes a prompt once, whatever G; TRL's does both G times.

Counts are exact, so they are asserted as they are. Time is the processor's, measured side by side.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.performance import ours_side, side_by_side
from tests.performance.scene import IMAGES, Case, write
from trainers.packing import Suffix


@pytest.fixture
def trl_side() -> Any:
    """TRL's side; TRL takes seconds to import."""
    pytest.importorskip("trl", reason="the other side of the benchmark: pip install -c constraints.txt trl")
    from tests.performance import trl_side

    return trl_side


@pytest.mark.parametrize(
    "case",
    [Case(1, 225, 6), Case(2, 297, 4, questions=2), Case(1, 225, 6, scope="all")],
    ids=["whole", "tiled", "learning tower"],
)
def test_a_step_computes_every_image_and_every_prompt_once(tmp_path: Path, case: Case) -> None:
    """A tower that learns sees an image once while drawing, once as reference, and once for its gradient."""
    passes = 3 if case.scope == "all" else 1
    for record in ours_side.run(write(tmp_path, case, steps=2), case).records:
        assert record.counts == {
            "processor_calls": case.questions * IMAGES,
            "images_opened": case.questions * IMAGES,
            "tiles_encoded": passes * case.questions * case.shown,
            "sampling_tokens": case.questions * (case.prompt + case.group * (case.response - 1)),
            "reference_tokens": case.questions * (case.prompt + case.group * case.response),
            "policy_tokens": case.questions * (case.prompt + case.group * case.response),
        }


@pytest.mark.slow
@pytest.mark.parametrize("case", [Case(1, 225, 6), Case(2, 297, 4)], ids=["whole", "tiled"])
def test_a_step_of_trl_computes_them_for_every_response(trl_side: Any, tmp_path: Path, case: Case) -> None:
    """In generation, reference and update; images are opened twice, and thrice where they are cut."""
    times = 3 if case.tiles > 1 else 2
    for record in trl_side.run(write(tmp_path, case, steps=2), case).records:
        assert record.counts == {
            "processor_calls": times,
            "images_opened": times * case.group * IMAGES,
            "tiles_encoded": 3 * case.group * case.shown,
            "sampling_tokens": case.group * (case.prompt + case.response - 1),
            "reference_tokens": case.group * (case.prompt + case.response),
            "policy_tokens": case.group * (case.prompt + case.response),
        }


@pytest.mark.slow
@pytest.mark.parametrize("case", [Case(1, 225, 16), Case(2, 297, 32)], ids=["whole", "tiled"])
def test_both_sides_score_the_same_network(trl_side: Any, tmp_path: Path, case: Case) -> None:
    """TRL's prompt is ours, and its responses have the same log-probabilities, reference and policy."""
    folder = write(tmp_path, case, steps=1)
    policy, maker = ours_side.make_policy(folder, case)
    (prompt,) = ours_side.prompts(folder, case, maker)

    def ours(ids: torch.Tensor) -> torch.Tensor:
        responses = [Suffix((), tuple(row.tolist())) for row in ids[:, case.prompt :]]
        logps, _ = policy.log_probs(prompt, policy.look(prompt), prompt.rows[0], responses, contrastive=0)
        return logps.reshape(case.group, case.response)

    scored = trl_side.scorings(folder, case)
    (ids, logps), (known, reference) = scored["policy"], scored["reference"]
    assert {tuple(row.tolist()) for row in ids[:, : case.prompt]} == {prompt.rows[0]}
    torch.testing.assert_close(ours(ids).detach(), logps, rtol=0, atol=1e-5)
    with policy.reference():
        torch.testing.assert_close(ours(known), reference, rtol=0, atol=1e-5)
    assert (ours(known) - reference).abs().max() > 1e-3  # the adapters do something


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_step_takes_a_quarter_of_trls_processor_time(trl_side: Any) -> None:
    """P = 681 and R = 32, the issue's point."""
    for attempt in range(2):  # what else runs on the machine can only make the ratio smaller
        found = side_by_side.compare(Case(2, 297, 32), steps=8, warmup=2)
        print(f"\nTRL's step takes {found.ratio:.1f} times as long")
        if found.ratio >= 4 or attempt:
            break
    assert found.case.prompt == 681
    assert found.ratio >= 4
