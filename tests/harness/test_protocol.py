"""Prompts against golden files, which change only on purpose: delete one and run the test to renew it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness import BadInput
from harness.keys import group_key
from harness.mmad import read_mmad
from harness.protocol import Protocol, read_protocol, shipped_protocols
from harness.records import ImageFile, PlannedGroup
from harness.subtasks import OBJECT_SUBTASKS

GOLDEN = Path(__file__).parent.parent / "golden"
PROTOCOLS = {protocol.name: protocol for protocol in shipped_protocols()}


def plan(root: Path, protocol: Protocol, item: int = 1) -> tuple[PlannedGroup, ...]:
    benchmark = read_mmad(root)
    return protocol.plan(benchmark.items[item], benchmark.knowledge)


def rendered(group: PlannedGroup) -> str:
    """A group as text: images by name, the user turn of its first question in full, the others' ends."""
    images = {id(image): f"[image {i}]" for i, image in enumerate((*group.references, group.query), 1)}
    content = "".join(part if isinstance(part, str) else images[id(part)] for part in group.content)
    ends = "\n-----\n".join(prompt.text for prompt in group.prompts)
    return f"{group.system}\n=====\n{content}\n-----\n{ends}"


@pytest.mark.parametrize("mode", ["direct", "think"])
@pytest.mark.parametrize("shape", ["pair", "single"])
@pytest.mark.parametrize("name", ["emit", "mmad"])
def test_prompts_are_golden(mmad_folder: Path, name: str, shape: str, mode: str) -> None:
    protocol = PROTOCOLS[name].with_options(mode=mode, shots=1 if shape == "pair" else 0)  # type: ignore[arg-type]
    (group,) = plan(mmad_folder, protocol)
    assert len(group.references) == (shape == "pair")
    file = GOLDEN / f"protocol_{name}_{shape}_{mode}.txt"
    if not file.exists():
        file.write_text(rendered(group), encoding="utf-8")
        pytest.fail(f"{file.name} was not there and is written now; read it, commit it")
    assert rendered(group) == file.read_text(encoding="utf-8")


def test_emit_shows_object_questions_the_query_alone(mmad_folder: Path) -> None:
    pair, single = plan(mmad_folder, PROTOCOLS["emit"], item=0)
    assert [q.subtask for q in pair.questions] == ["anomaly_discrimination"]
    assert {q.subtask for q in single.questions} <= OBJECT_SUBTASKS and single.references == ()
    assert "Description: a broken bottle." in str(pair.content) and "Description" not in str(single.content)
    assert [p.contrastive for p in pair.prompts] == [True]
    assert not any(p.contrastive for p in single.prompts)


def test_mmad_shows_every_question_both_images_and_no_knowledge(mmad_folder: Path) -> None:
    (group,) = plan(mmad_folder, PROTOCOLS["mmad"], item=0)
    assert len(group.questions) == 4 and len(group.references) == 1
    assert group.references[0].path.name == "001.png"  # the first random template
    assert "Description" not in str(group.content)


def test_every_prompt_of_a_group_has_the_same_images_in_order(mmad_folder: Path) -> None:
    (group,) = plan(mmad_folder, PROTOCOLS["mmad"].with_options(shots=1))
    shown = [part for part in group.content if isinstance(part, ImageFile)]
    assert shown == [*group.references, group.query]
    assert len({prompt.id for prompt in group.prompts}) == len(group.prompts)


def test_shots(mmad_folder: Path) -> None:
    (two,) = plan(mmad_folder, PROTOCOLS["emit"].with_options(shots=2))
    assert [image.path.name for image in two.references] == ["000.png", "001.png"]
    (none,) = plan(mmad_folder, PROTOCOLS["emit"].with_options(shots=0))
    assert none.references == () and not any(prompt.contrastive for prompt in none.prompts)
    with pytest.raises(BadInput, match=r"2 reference image\(s\) listed, but 3 wanted; .* --shots 2"):
        plan(mmad_folder, PROTOCOLS["emit"].with_options(shots=3))


def test_the_digest_covers_every_field(tmp_path: Path) -> None:
    emit = PROTOCOLS["emit"]
    digests = {emit.digest, emit.with_options(mode="direct").digest, emit.with_options(shots=0).digest}
    assert len(digests) == 3 and emit.with_options().digest == emit.digest
    source = Path(read_protocol.__code__.co_filename).parent / "protocols" / "emit.toml"
    text = source.read_text(encoding="utf-8")
    assert read_protocol(source).digest == emit.digest
    changed = tmp_path / "mine.toml"
    changed.write_text(
        text.replace("Question: {{ question }}", "Question:  {{ question }}"), encoding="utf-8"
    )
    assert read_protocol(changed).digest != emit.digest


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('mode = "think"', 'mode = "guess"', "mode is 'guess'; it must be one of direct, think, logits"),
        ("shots = 1", "shots = 9", "shots is 9; it must be a whole number from 0 to 8"),
        ("shots = 1", "shots = 1.5", "shots is 1.5; it must be a whole number"),
        ("shots = 1", "shots = true", "shots is True; it must be a whole number"),
        ('name = "emit"', 'name = "../../elsewhere"', "name is '../../elsewhere'; it must be letters"),
        ("direct = 16", 'direct = "16"', "it must be one number from 1 per answer mode"),
        ("direct = 16", "direct = 0", "it must be one number from 1 per answer mode"),
        ('system = "', 'system = 4 # "', "system is 4; it must be a text"),
        ('contrastive = ["', 'contrastive = [["a"], "', "it must be a list of subtask keys"),
        ('reference = "similar"', 'reference = "best"', "reference is 'best'"),
        ("shots = 1\n", "", "missing field shots"),
        ("shots = 1\n", "shots = 1\nwarmth = 1\n", "unknown field warmth"),
        ("{% for letter", "{% fro letter", "template question, line"),
        ('mode = "think"', "mode = direct", "not a readable protocol file"),
    ],
)
def test_a_wrong_protocol_file_is_named_with_its_field(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    source = Path(read_protocol.__code__.co_filename).parent / "protocols" / "emit.toml"
    file = tmp_path / "mine.toml"
    file.write_text(source.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(BadInput) as caught:
        read_protocol(file)
    assert sentence in str(caught.value) and str(caught.value).startswith(str(file))


@pytest.mark.parametrize(
    ("field", "source", "sentence"),
    [
        ("content", "{{ query }} {{ nothing }}", "UndefinedError: 'nothing' is undefined"),
        ("content", "{{ query.__class__.__mro__ }}", "SecurityError"),
        ("question", "{{ 1 // 0 }}", "ZeroDivisionError"),
        ("content", "{{ references[0] }}", "shows 1 image(s), or not in order, where 2 are given"),
        ("content", "{{ query }} like {{ references[0] }}?", "shows 2 image(s), or not in order"),
        ("content", "{{ references[0] }} {{ query }} {{ query }}", "shows 3 image(s)"),
    ],
)
def test_a_template_that_cannot_be_filled_in_is_one_sentence(
    mmad_folder: Path, field: str, source: str, sentence: str
) -> None:
    protocol = replace(PROTOCOLS["emit"], **{field: source})
    with pytest.raises(BadInput, match=f"protocol 'emit': its {field} template") as caught:
        plan(mmad_folder, protocol)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_a_raw_protocol_leaves_the_frame_of_a_chat_out_and_says_so_in_its_keys(mmad_folder: Path) -> None:
    raw = PROTOCOLS["anomalyr1"]
    (group,) = plan(mmad_folder, raw)
    assert group.raw and not plan(mmad_folder, PROTOCOLS["emit"])[0].raw
    assert group.prompts[0].text.startswith("\n\n") and group.prompts[0].text.endswith("</answer> tags.")
    framed = replace(group, raw=False)
    keys = {group_key(one, str, "m", raw.decoding) for one in (group, framed)}
    assert len(keys) == 2


def test_protocols_from_before_the_choice_of_a_frame_keep_their_digests() -> None:
    assert PROTOCOLS["emit"].digest.startswith("d5b02ff804da96ee")
    assert PROTOCOLS["mmad"].digest.startswith("ff701f0605c30169")
    assert replace(PROTOCOLS["emit"], chat="raw").digest != PROTOCOLS["emit"].digest
    with pytest.raises(BadInput, match="chat is 'frame'; it must be template or raw"):
        replace(PROTOCOLS["emit"], chat="frame")  # type: ignore[arg-type]
