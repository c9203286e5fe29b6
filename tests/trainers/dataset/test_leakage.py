"""The audit: planted copies and questions are found under the right name, clean sets are clean."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image, ImageEnhance
from PIL.Image import Transpose

from harness.errors import BadInput, ExitCode
from harness.mmad import read_mmad
from harness.plugins import load_registry
from plugins.mini.benchmark import SIZE, products, stream
from plugins.mini.render import shoot
from tests.builders import question
from trainers.dataset.leakage import Audit, audit, normal
from trainers.dataset.leakage_command import leakage
from trainers.samples import read_training_set

YES_NO = {"A": "Yes.", "B": "No."}
PLACES = {"A": "Top.", "B": "Left.", "C": "Center.", "D": "Right."}
PRODUCTS = products()[::5]
Row = dict[str, Any]


def picture(product: int, name: str, defective: bool = False) -> Image.Image:
    """One shot of a product; another name is another shot."""
    made = PRODUCTS[product]
    kind = made.kinds[0] if defective else None
    return Image.fromarray(shoot(made.design, stream(5, f"{made.folder}/{name}"), SIZE, kind).pixels)


def asked(product: int, normal_image: bool) -> list[dict[str, Any]]:
    """A closed question, and one with an option of this product alone."""
    thing = PRODUCTS[product].design.family.noun
    return [
        question("Is there any defect in the object?", YES_NO, "AB"[normal_image], "Anomaly Detection"),
        question("Where is the defect?", PLACES, "A", "Defect Localization"),
        question(
            f"What holds the {thing}?",
            {"A": f"The {thing}'s own frame.", "B": "Glue.", "C": "Nothing."},
            "A",
            "Object Structure",
        ),
    ]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three products with two queries and two references each, in MMAD's format."""
    root = tmp_path_factory.mktemp("bench")
    table: dict[str, Any] = {}
    for number, product in enumerate(PRODUCTS):
        templates = [f"{product.folder}/train/good/{n}.png" for n in range(2)]
        queries = [(f"{product.folder}/test/{kind}/0.png", kind) for kind in ("good", "bad")]
        for name, defective in [(one, False) for one in templates] + [(q, k == "bad") for q, k in queries]:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            picture(number, name, defective).save(root / name)
        for name, kind in queries:
            table[name] = {
                "image_path": name.split("/", 2)[2],
                "mask_path": None,
                "similar_templates": templates,
                "random_templates": templates[::-1],
                "conversation": asked(number, kind == "good"),
            }
    (root / "mmad.json").write_text(json.dumps(table))
    (root / "domain_knowledge.json").write_text("{}")
    return root


def row(number: int, product: int, **changes: Any) -> Row:
    """One line of the training file, on other shots of a benchmark product."""
    return {
        "id": f"row{number}",
        "dataset": "Train",
        "object": f"thing{product}",
        "task": "anomaly_discrimination",
        "references": [f"reference/{product}.jpg"],
        "query": f"query/{product}_{number}.jpg",
        "question": "Is there any defect in the object?",
        "options": YES_NO,
        "answer": "A",
        **changes,
    }


@pytest.fixture
def train(tmp_path: Path) -> Path:
    """A clean training set: other shots of all benchmark products, two queries and a text on each."""
    folder = tmp_path / "train"
    rows: list[Row] = []
    for product in range(len(PRODUCTS)):
        for number in range(2):
            rows.append(row(len(rows), product))
            save(folder / rows[-1]["query"], picture(product, f"trained {number}", bool(number)))
        save(folder / rows[-1]["references"][0], picture(product, "trained reference"))
        rows.append(row(len(rows), product, query=None, description="It has a scratch."))
    write(folder, rows)
    return folder


def save(path: Path, image: Image.Image, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def write(folder: Path, rows: list[Row]) -> None:
    (folder / "train.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))


def rows_of(folder: Path) -> list[Row]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def add(folder: Path, **changes: Any) -> None:
    """One more line in the training file."""
    rows = rows_of(folder)
    write(folder, [*rows, row(len(rows), 0, **{"query": None, "description": "Sound.", **changes})])


def compare(train: Path, bench: Path, **options: Any) -> Audit:
    def silent(title: str, total: int) -> nullcontext[Any]:
        return nullcontext(SimpleNamespace(update=lambda n=1: None))

    return audit(read_training_set(train / "train.jsonl"), read_mmad(bench), silent, **options)


def command(*arguments: Any) -> Result:
    return CliRunner().invoke(
        leakage, [str(one) for one in arguments], obj=load_registry(), standalone_mode=False
    )


def test_other_shots_of_the_same_products_are_no_leak(train: Path, bench: Path) -> None:
    found = compare(train, bench)
    assert found.leaks == 0 and not found.images
    assert [(one.name, len(one.benchmark), len(one.training)) for one in found.questions] == [
        ("common-wording", 6, 9)
    ]
    result = command(train, bench)
    assert result.return_value == ExitCode.OK
    assert "0 leaks" in result.stdout and "images: 100%" in result.stderr


COPIES: dict[str, tuple[Callable[[Image.Image], Image.Image], dict[str, Any], str]] = {
    "copy.jpg": (lambda image: image, {"quality": 60}, "upright"),
    "half.png": (lambda image: image.resize((SIZE // 2, SIZE // 2)), {}, "upright"),
    "bright.png": (lambda image: ImageEnhance.Brightness(image).enhance(1.08), {}, "upright"),
    "mirrored.jpg": (
        lambda image: image.transpose(Transpose.FLIP_LEFT_RIGHT), {"quality": 75}, "flip-left-right"
    ),
    "turned.png": (lambda image: image.transpose(Transpose.ROTATE_90), {}, "rotate-90"),
    "saved_again.png": (lambda image: image, {"compress_level": 1}, "upright"),
}  # fmt: skip


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("role", ["query", "reference"])
def test_a_planted_copy_of_a_query_is_near(train: Path, bench: Path, name: str, role: str) -> None:
    change, options, orientation = COPIES[name]
    key = f"{PRODUCTS[1].folder}/test/bad/0.png"
    save(train / name, change(Image.open(bench / key)), **options)
    add(train, **({"query": name} if role == "query" else {"references": [name]}))
    found = compare(train, bench)
    (one,) = found.images
    assert (one.name, one.leak, one.training_role, one.benchmark_role) == ("near", True, role, "query")
    assert (one.training_file, one.benchmark_file, one.orientation) == (name, key, orientation)
    assert (found.leaked_images, found.leaked_questions) == (1, 0)
    assert found.pairs()[role, "query"] == {"byte-equal": 0, "near": 1}  # type: ignore[index]


def test_equal_bytes_are_told_apart_from_near(train: Path, bench: Path) -> None:
    key = f"{PRODUCTS[0].folder}/test/good/0.png"
    shutil.copy(bench / key, train / "copy.png")
    add(train, query="copy.png")
    add(train, query="copy.png")
    found = compare(train, bench)
    (one,) = found.images
    assert (one.name, one.samples, one.difference, one.benchmark_file) == ("byte-equal", 2, 0, key)
    assert found.leaks == 1


def test_a_shared_reference_is_reported_and_not_counted(train: Path, bench: Path) -> None:
    template = f"{PRODUCTS[2].folder}/train/good/1.png"
    shutil.copy(bench / template, train / "copy.png")
    save(train / "copy.jpg", Image.open(bench / template), quality=80)
    add(train, references=["copy.png"])
    add(train, query="copy.jpg")
    found = compare(train, bench)
    assert [(one.name, one.how, one.training_role) for one in found.images] == [
        ("same-reference", "near", "query"),
        ("same-reference", "byte-equal", "reference"),
    ]
    assert found.leaks == 0
    assert command(train, bench).return_value == ExitCode.OK


def test_a_leaked_query_counts_once_however_often_it_is_shown(train: Path, bench: Path) -> None:
    key = f"{PRODUCTS[0].folder}/test/bad/0.png"
    shutil.copy(bench / key, train / "copy.png")
    save(train / "copy.jpg", Image.open(bench / key), quality=60)
    add(train, query="copy.png", references=["copy.jpg"])
    found = compare(train, bench)
    assert [one.name for one in found.images] == ["byte-equal", "near"]
    assert found.leaks == 1


def test_an_equal_question_leaks_where_an_option_is_of_one_product(train: Path, bench: Path) -> None:
    thing = PRODUCTS[0].design.family.noun
    copied = {
        "question": f"  what HOLDS the {thing}",
        "options": {"A": "nothing", "B": f"The {thing}'s own  frame.", "C": "Glue."},
    }
    add(train, **copied)
    add(train, question="Where is the defect?", options=PLACES)  # everybody asks that
    add(train, **{**copied, "options": {"A": "Glue.", "B": "Nothing."}})  # other options
    add(train, **{**copied, "question": "What else holds it?"})
    found = compare(train, bench)
    leak = found.questions[0]
    assert (leak.name, leak.specific, leak.training) == (
        "equal-question", (f"The {thing}'s own frame.",), ("row9",)
    )  # fmt: skip
    assert leak.benchmark == tuple(f"{PRODUCTS[0].folder}/test/{kind}/0.png#2" for kind in ("good", "bad"))
    assert [(one.name, one.leak) for one in found.questions[1:]] == [("common-wording", False)] * 2
    assert (found.leaked_images, found.leaked_questions, found.leaks) == (0, 2, 2)


def test_a_benchmark_of_one_product_has_no_vocabulary(train: Path, bench: Path, tmp_path: Path) -> None:
    single = shutil.copytree(bench, tmp_path / "single")
    table = json.loads((single / "mmad.json").read_text())
    kept = {key: entry for key, entry in table.items() if key.startswith(PRODUCTS[0].folder)}
    (single / "mmad.json").write_text(json.dumps(kept))
    assert compare(train, single).leaks == 0


@pytest.mark.parametrize("text", ["A b.", " a  B ", "\uff21 b", "a\nb?"])
def test_texts_are_compared_by_their_words(text: str) -> None:
    assert normal(text) == "a b"


def test_bound_formats_and_report(train: Path, bench: Path, tmp_path: Path) -> None:
    for number, product in enumerate(PRODUCTS):
        shutil.copy(bench / f"{product.folder}/test/bad/0.png", train / f"{number}.png")
        add(train, query=f"{number}.png")
    assert command(train, bench, "--bound", "3").return_value == ExitCode.OK
    report = tmp_path / "reports" / "leakage.json"
    result = command(train, bench, "--bound", "2", "--out", report, "--format", "json", "--examples", "1")
    assert result.return_value == ExitCode.REGRESSION
    content = json.loads(result.stdout)
    assert content == json.loads(report.read_text())
    assert (content["verdict"], content["bound"], content["leaks"]) == ("leak", 2, 3)
    assert len(content["images"]) == 3 and content["questions"][0]["benchmark"] == 6
    assert content["pairs"][0] == {
        "training": "query", "benchmark": "query", "leak": True, "byte-equal": 3, "near": 0
    }  # fmt: skip
    shown = command(train / "train.jsonl", bench, "--bound", "2", "--examples", "1").stdout
    assert "byte-equal (3, the first 1):" in shown
    assert shown.count(".png (query) is") == 1
    assert "3 leaks: 3 benchmark query images and 0 questions; more than the bound of 2." in shown


def test_bytes_alone_can_be_compared(train: Path, bench: Path) -> None:
    key = f"{PRODUCTS[0].folder}/test/bad/0.png"
    save(train / "copy.jpg", Image.open(bench / key), quality=90)
    shutil.copy(bench / key, train / "copy.png")
    add(train, query="copy.png", references=["copy.jpg"])
    (train / "query/0_0.jpg").write_bytes(b"no image")  # nothing is decoded
    assert [one.name for one in compare(train, bench, near=0).images] == ["byte-equal"]
    shown = command(train, bench, "--near", "0").stdout
    assert "Near" in shown and "  -\n" in shown


def test_threads_change_nothing(train: Path, bench: Path) -> None:
    shutil.copy(bench / f"{PRODUCTS[0].folder}/test/bad/0.png", train / "copy.png")
    add(train, query="copy.png")
    assert compare(train, bench, workers=0).as_json() == compare(train, bench, workers=3).as_json()


def test_a_benchmark_is_named_or_a_folder(
    train: Path, bench: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EMIT_BENCH_DATA", str(bench))
    assert "(real world): 18 questions, 6 query images" in command(train, "mmad").stdout
    for arguments, sentence in (
        ((train, "nowhere"), "nowhere: there is no such folder and no such benchmark"),
        ((train, tmp_path), "there is no mmad.json"),
        ((tmp_path, bench), "train.jsonl: there is no such file"),
    ):
        result = command(*arguments)
        assert isinstance(result.exception, BadInput) and sentence in str(result.exception)


def test_a_broken_image_is_named(train: Path, bench: Path) -> None:
    (train / "query/0_0.jpg").write_bytes(b"no image")
    result = command(train, bench)
    assert isinstance(result.exception, BadInput)
    assert "query/0_0.jpg: the image cannot be read" in str(result.exception)
