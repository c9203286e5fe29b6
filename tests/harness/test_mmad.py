from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import BadInput, load_benchmark
from harness.mmad import inspect_mmad, read_mmad
from tests.builders import paint, write_mmad

BOTTLE = "DS-MVTec/bottle/image/good/000.png"
BROKEN = "DS-MVTec/bottle/image/bad/001.png"


def test_a_sound_folder(mmad_folder: Path) -> None:
    benchmark = read_mmad(mmad_folder)
    assert (benchmark.name, benchmark.world, len(benchmark.items)) == ("mmad", "real", 24)
    bottle, broken = benchmark.items[:2]
    assert (bottle.key, bottle.dataset, bottle.object, bottle.normal) == (BOTTLE, "DS-MVTec", "bottle", True)
    assert [q.subtask for q in bottle.questions] == [
        "anomaly_discrimination",
        "object_classification",
        "object_analysis",
        "object_analysis",
    ]
    assert not broken.normal and [mask.name for mask in broken.masks] == ["001.png"]
    assert broken.similar_templates == tuple(
        mmad_folder / f"MVTec-AD/bottle/train/good/00{i}.png" for i in range(2)
    )
    assert benchmark.knowledge["MVTec"]["bottle"]["good"].startswith(" <Normal>")


def test_order_of_items_and_options_is_the_files(tmp_path: Path) -> None:
    def spoil(table, root):
        table[BOTTLE]["conversation"][1]["Options"] = {"D": "d", "A": "a", "B": "b", "C": "c"}
        entries = list(table.items())[::-1]
        table.clear()
        table.update(entries)

    items = read_mmad(write_mmad(tmp_path / "x", spoil)).items
    assert items[0].key.startswith("GoodsAD") and items[-1].key == BOTTLE
    assert list(items[-1].questions[1].options) == ["D", "A", "B", "C"]


@pytest.mark.parametrize(
    "name",
    [
        "DS-MVTec/bottle/ground_truth/bad/001.png",  # relative to the root
        "ground_truth/bad/001.png",  # to the object
        "deep/001.png",  # to the first three parts of the key
    ],
)
def test_masks_are_found_however_they_are_named(tmp_path: Path, name: str) -> None:
    def spoil(table, root):
        table[BROKEN]["mask_path"] = name
        paint(root / "DS-MVTec/bottle/image/deep/001.png", 1)

    items = read_mmad(write_mmad(tmp_path / "x", spoil)).items
    assert items[1].masks[0].name == "001.png" and items[1].masks[0].is_file()


def test_a_mask_may_be_a_folder_of_images(tmp_path: Path) -> None:
    def spoil(table, root):
        for name in ("001.png", "000.png"):
            paint(root / "DS-MVTec/bottle/masks/001" / name, 1)
        (root / "DS-MVTec/bottle/masks/001/notes.txt").write_text("no mask")
        table[BROKEN]["mask_path"] = "masks/001"

    items = read_mmad(write_mmad(tmp_path / "x", spoil)).items
    assert [mask.name for mask in items[1].masks] == ["000.png", "001.png"]


@pytest.mark.parametrize("value", ["", None, "gone.png"])
def test_an_empty_or_missing_mask_is_no_obstacle(tmp_path: Path, value: str | None) -> None:
    root = write_mmad(tmp_path / "x", lambda table, root: table[BROKEN].update(mask_path=value))
    assert read_mmad(root).items[1].masks == ()
    assert len(inspect_mmad(root).problems) == (value == "gone.png")


def test_the_first_conversation_counts(tmp_path: Path) -> None:
    def spoil(table, root):
        talk = table[BOTTLE].pop("conversation")
        table[BOTTLE]["conversation_v2"] = talk[:1]
        table[BOTTLE]["conversation"] = talk

    assert len(read_mmad(write_mmad(tmp_path / "x", spoil)).items[0].questions) == 1


def change(**values):
    return lambda table, root: table[BOTTLE]["conversation"][1].update(values)


def entry(**values):
    return lambda table, root: table[BOTTLE].update(values)


def add_key(key):
    return lambda table, root: table.update({key: table[BOTTLE]})


PROBLEMS = {
    "answer": (change(Answer="E"), "conversation[1].Answer: 'E' is not among the options A, B, C, D"),
    "answer type": (change(Answer=None), "conversation[1].Answer: None is not among"),
    "type": (
        change(type="Defect Colour"),
        "conversation[1].type: 'Defect Colour' is no question type; use one of",
    ),
    "options": (
        change(Options={"A": "x"}),
        "conversation[1].Options: it must be an object of 2 to 5 options",
    ),
    "letters": (
        change(Options={"A": "x", "F": "y"}),
        "conversation[1].Options: 'F' is no letter from A to E",
    ),
    "empty option": (change(Options={"A": "x", "B": " "}), "conversation[1].Options: option B has no text"),
    "question": (change(Question=""), "conversation[1].Question: it must be a text"),
    "marker": (
        change(Question="what is \ufffc?"),
        "conversation[1].Question: it holds the object replacement",
    ),
    "no talk": (lambda t, r: t[BOTTLE].pop("conversation"), "conversation: there is none"),
    "talk": (entry(conversation={}), "conversation: it must be a list of questions"),
    "entry": (lambda t, r: t.update({BOTTLE: []}), "the entry must be an object with a conversation"),
    "talk entry": (entry(conversation=["?"]), "conversation[0]: it must be an object with Question"),
    "templates": (entry(similar_templates="a.png"), "similar_templates: it must be a list of image paths"),
    "template gone": (
        entry(similar_templates=["VisA/gone.png"]),
        "similar_templates[0]: the reference image 'VisA/gone.png' is missing; restore the file",
    ),
    "image gone": (lambda t, r: (r / BOTTLE).unlink(), f"the image '{BOTTLE}' is missing; restore the file"),
    "short key": (add_key("bottle.png"), "bottle.png: the key must be <dataset>/<object>/<image path>"),
    "climbing": (add_key("DS-MVTec/../../x.png"), "climbs out with '..'; keep every file inside"),
    "absolute": (add_key("/etc/x/hostname"), "is an absolute path; keep every file inside"),
    "mask climbs": (
        entry(mask_path="../../secret.png"),
        "mask_path: '../../secret.png' climbs out with '..'",
    ),
}


@pytest.mark.parametrize("spoil, sentence", PROBLEMS.values(), ids=PROBLEMS)
def test_every_problem_has_its_sentence(tmp_path: Path, spoil, sentence: str) -> None:
    root = write_mmad(tmp_path / "x", spoil)
    with pytest.raises(BadInput) as caught:
        read_mmad(root)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(f"{root / 'mmad.json'}: ")
    assert f"`emit-bench data doctor {root}`" in str(caught.value)
    assert len([p for p in inspect_mmad(root).problems if p.fatal]) == 1


def test_the_first_problem_is_told_with_the_number_of_the_others(tmp_path: Path) -> None:
    def spoil(table, root):
        for one in table.values():
            one["conversation"][0]["Answer"] = "Z"

    with pytest.raises(BadInput, match=r"good/000.*\(23 more problems\)"):
        read_mmad(write_mmad(tmp_path / "x", spoil))


@pytest.mark.parametrize("what", ["file", "folder"])
def test_links_may_not_leave_the_folder(tmp_path: Path, what: str) -> None:
    outside = tmp_path / "outside"
    paint(outside / "secret.png", 1)

    def spoil(table, root):
        link = root / "DS-MVTec/bottle/image/out"
        link.symlink_to(outside / "secret.png" if what == "file" else outside)
        key = "DS-MVTec/bottle/image/out" + ("" if what == "file" else "/secret.png")
        table[key] = table[BOTTLE]

    with pytest.raises(BadInput, match="is a link that leaves the folder"):
        read_mmad(write_mmad(tmp_path / "x", spoil))


def test_links_inside_the_folder_are_fine(tmp_path: Path) -> None:
    def spoil(table, root):
        (root / "DS-MVTec/bottle/image/linked.png").symlink_to(root / BOTTLE)
        table["DS-MVTec/bottle/image/linked.png"] = table[BOTTLE]

    assert len(read_mmad(write_mmad(tmp_path / "x", spoil)).items) == 25


def test_files_that_are_no_benchmark(tmp_path: Path, mmad_folder: Path) -> None:
    with pytest.raises(BadInput, match="no such folder; point --data"):
        read_mmad(tmp_path / "gone")
    with pytest.raises(BadInput, match=r"there is no mmad\.json; point --data"):
        read_mmad(tmp_path)
    file = mmad_folder / "mmad.json"
    text = file.read_text()
    for content, sentence in (
        (text[:-5], "broken JSON"),
        (text.replace("true", "1" * 5000, 1), r"mmad\.json: it holds a number of too many digits"),
        (text.replace("Is there", "\\ud800", 1), "half of a surrogate pair"),
        ("[]", "must be an object with one entry per image"),
        ("{}", "must be an object with one entry per image"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        (text.replace('"Answer"', '"type": "x", "Answer"', 1), "the key 'type' stands twice"),
    ):
        file.write_text(content)
        with pytest.raises(BadInput, match=sentence):
            read_mmad(mmad_folder)
    file.write_text(text.replace("Is there", "\\ud83d\\ude00 Is there", 1))  # a whole pair is a character
    assert read_mmad(mmad_folder).items[0].questions[0].text.startswith("\U0001f600 Is")
    file.write_bytes(b"\xff\xfe{")
    with pytest.raises(BadInput, match="not UTF-8"):
        read_mmad(mmad_folder)


def test_knowledge_may_be_absent_but_not_broken(mmad_folder: Path) -> None:
    file = mmad_folder / "domain_knowledge.json"
    table = json.loads(file.read_text())
    del table["MVTec"]["pill"]
    file.write_text(json.dumps(table))
    assert [p.field for p in inspect_mmad(mmad_folder).problems] == ["DS-MVTec.pill"]
    assert len(read_mmad(mmad_folder).items) == 24
    table["VisA"]["candle"] = ["text"]
    file.write_text(json.dumps(table))
    with pytest.raises(BadInput, match=r"VisA\.candle: it must be an object of condition and text"):
        read_mmad(mmad_folder)
    file.unlink()
    assert read_mmad(mmad_folder).knowledge == {}


def test_the_digest_covers_content_not_place(tmp_path: Path) -> None:
    def digest(name, spoil=lambda table, root: None):
        return read_mmad(write_mmad(tmp_path / name, spoil)).digest

    plain = digest("a")
    assert digest("b") == plain
    assert digest("c", change(Answer="C")) != plain
    assert digest("d", change(Options={"B": "Right.", "A": "Left.", "C": "Centre.", "D": "Top."})) != plain
    assert digest("e", entry(similar_templates=["MVTec-AD/bottle/train/good/001.png"])) != plain
    assert digest("f", entry(tomorrow=2)) == plain


def test_load_benchmark_takes_a_folder_or_a_name(
    tmp_path_factory: pytest.TempPathFactory, mmad_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path = tmp_path_factory.mktemp("elsewhere")
    assert load_benchmark(mmad_folder).digest == load_benchmark(str(mmad_folder)).digest
    monkeypatch.setenv("EMIT_BENCH_DATA", str(mmad_folder))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mmad").mkdir(exist_ok=True)  # a name is a name, whatever lies in the current folder
    assert len(load_benchmark("mmad").items) == 24
    monkeypatch.delenv("EMIT_BENCH_DATA")
    with pytest.raises(BadInput, match="pass --data DIR or set EMIT_BENCH_DATA"):
        load_benchmark("mmad")
    with pytest.raises(BadInput, match="there is no benchmark 'mmadd'; did you mean mmad"):
        load_benchmark("mmadd")
