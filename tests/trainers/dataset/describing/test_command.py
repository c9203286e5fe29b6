"""``emit-bench data describe``: what it asks, what it leaves, and what survives a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from harness.errors import BadInput, ExitCode
from harness.hookspecs import DescriberSpec
from harness.plugins import load_registry
from harness.raw import TextKind, TextRequest
from tests import servers
from tests.servers import GOOD, Act, Asked, Server, reply, serving, status
from tests.trainers.dataset.describing import world
from trainers.dataset.describing.cache import FILE_NAME, TextCache
from trainers.dataset.describing.command import describe
from trainers.dataset.describing.plan import PlanSettings
from trainers.dataset.describing.writing import write_with_describer
from trainers.dataset.texts import DESCRIPTIONS, KNOWLEDGE, read_knowledge, read_texts

KEY = "sk-do-not-tell-anyone"
ALL = world.N_KNOWLEDGE + world.N_OBJECT
ROOT = Path(__file__).parents[4]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("EMIT_BENCH_API_KEY", KEY)
    return world.write(tmp_path / "raw")


def words(root: Path, url: str, *more: str) -> list[str]:
    out = root.parent / "texts"
    given = [f"mpdd={root}/MPDD", f"--text-source=mvtec-ad={root}/MVTec-AD"]
    given += ["--knowledge", f"{root}/domain_knowledge.json", "--endpoint", url, "--model", "vlm"]
    return [*given, "--out", str(out), *world.FEW, *more]


def call(arguments: list[str]) -> Result:
    runner = CliRunner()
    return runner.invoke(describe, arguments, obj=load_registry(), standalone_mode=False)


def texts_files(root: Path) -> dict[str, bytes]:
    names = (KNOWLEDGE, DESCRIPTIONS, "describe.json")
    return {name: (root.parent / "texts" / name).read_bytes() for name in names}


def says(number: int, asked: Asked) -> Act:
    """A sound text that tells which request it answers."""
    return reply(f"{GOOD} It bears the mark {abs(hash(asked.words)) % 1000} {number}.")


def test_a_dry_run_counts_and_touches_nothing(root: Path) -> None:
    with serving() as server:
        done = call([*words(root, server.url), "--dry-run", "--format", "json"])
    assert done.return_value == ExitCode.OK and server.asked == []
    assert not (root.parent / "texts").exists()
    told = json.loads(done.stdout)
    calls = {kind: (row["calls"], row["images"]) for kind, row in told["kinds"].items()}
    assert calls == {
        "defect-knowledge": (2, 6),
        "normal-knowledge": (1, 1),
        "defect-text": (8, 8),
        "normal-text": (2, 2),
    }
    assert told["total"]["calls"] == ALL
    assert told["total"]["image_tokens"] == 17 * 3 * 2  # 60 x 40 pixels begin 3 x 2 squares of 28
    bare = [word for word in words(root, "") if word not in ("--endpoint", "", "--model", "vlm")]
    assert "17" in call([*bare, "--dry-run"]).stdout  # needs no server


def test_texts_are_asked_for_checked_and_written(root: Path) -> None:
    with serving(says) as server:
        done = call([*words(root, server.url), "--format", "json"])
        assert done.return_value == ExitCode.OK, done.stderr
        assert len(server.asked) == ALL
        first = texts_files(root)
        again = call(words(root, server.url))
        assert again.return_value == ExitCode.OK and len(server.asked) == ALL
    assert texts_files(root) == first
    assert json.loads(done.stdout)["texts"]["defect-text"] == {"planned": 8, "written": 8}
    out = root.parent / "texts"
    texts = read_texts(out)
    assert list(texts.knowledge) == ["MVTec", "MPDD"] and list(texts.knowledge["MVTec"]) == ["bottle"]
    given = read_knowledge(root / "domain_knowledge.json")["MVTec"]["bottle"]
    assert list(texts.knowledge["MVTec"]["bottle"].items()) == list(given.items())
    ours = texts.knowledge["MPDD"]["metal_tube"]
    assert list(ours) == ["good", "bent_end", "scratch"]
    assert ours["bent_end"].startswith(f" <Bent end>\n Description: {GOOD} It bears")
    assert ours["good"].startswith(f" <Normal>\n Description: {GOOD}")
    rows = texts.descriptions
    assert len(rows) == world.N_OBJECT and len({row.text for row in rows}) == world.N_OBJECT
    assert {(row.defect, row.words) for row in rows} == {
        (None, ""),
        ("broken_large", "broken large"),
        ("contamination", "contamination"),
    }
    assert all(row.image.startswith("bottle/train/good/") and len(row.digest) == 64 for row in rows)
    record = json.loads(first["describe.json"])
    assert record["endpoint"] == f"{server.url}/v1/chat/completions" and record["model"] == "vlm"
    assert record["tokens"] == {
        "replies": ALL,
        "prompt_tokens": 100 * ALL,
        "completion_tokens": 20 * ALL,
    }
    assert record["missing"] == [] and record["seed"] == 0 and len(record["prompts"]) == 64


def test_what_is_sent(root: Path) -> None:
    with serving(says) as server:
        call(words(root, server.url, "--max-side", "30"))
    by_kind: dict[str, list[Asked]] = {}
    for asked in server.asked:
        parts = asked.body["messages"][1]["content"]
        pictures = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        assert all(url.startswith("data:image/png;base64,") for url in pictures)
        by_kind.setdefault(f"{len(pictures)} {'Place' in asked.words}", []).append(asked)
        assert str(root) not in json.dumps(asked.body) and ".png" not in asked.words
    assert {kind: len(found) for kind, found in by_kind.items()} == {"3 False": 2, "1 False": 3, "1 True": 8}
    normal = next(asked for asked in by_kind["1 False"] if "Known defects" in asked.words)
    last = server.asked[-1]
    assert normal is last  # after the defect texts, which it is told
    assert normal.words.count(GOOD) == 2 and "Bent end: " in normal.words
    assert len({asked.body["seed"] for asked in server.asked}) == ALL


def test_a_changed_image_or_model_is_asked_anew_and_nothing_else(root: Path) -> None:
    with serving(lambda number, asked: reply(GOOD)) as server:
        call(words(root, server.url))
        shown = read_texts(root.parent / "texts").descriptions[0].image
        world.picture(root / "MVTec-AD" / shown, 99)
        call(words(root, server.url))
        assert len(server.asked) == ALL + 5  # the texts on that image
        call(words(root, server.url, "--model", "other"))
        assert len(server.asked) == 2 * ALL + 5
        call(words(root, server.url, "--concurrency", "1", "--timeout", "9"))  # decides no text
        assert len(server.asked) == 2 * ALL + 5


def test_faulty_texts_are_asked_for_again_and_never_kept(root: Path) -> None:
    def behave(number: int, asked: Asked) -> Act:
        bad = "contamination" in asked.words
        return reply("I'm sorry, I cannot describe this picture.") if bad else reply(GOOD)

    with serving(behave) as server:
        done = call([*words(root, server.url), "--max-failed", "0.5", "--attempts", "2"])
        assert done.return_value == ExitCode.INCONCLUSIVE
        seeds = [asked.body["seed"] for asked in server.asked if "contamination" in asked.words]
        assert len(seeds) == len(set(seeds)) == 4 * 2
        assert "4 of 13 texts are missing" in done.stderr and "[refused]" in done.stderr
        record = json.loads(texts_files(root)["describe.json"])
        assert [one["fault"] for one in record["missing"]] == ["refused"] * 4
        assert record["tokens"]["replies"] == ALL + 4
        assert len(read_texts(root.parent / "texts").descriptions) == 6
        assert b"sorry" not in texts_files(root)[DESCRIPTIONS]
        strict = call([*words(root, server.url), "--attempts", "2", "--max-failed", "0.3"])
        assert strict.return_value == ExitCode.FAILED_ITEMS
        again = [asked.body["seed"] for asked in server.asked if "contamination" in asked.words]
        assert len(set(again)) == 16  # a rerun tries seeds that have not failed yet
        server.behave = says
        assert call(words(root, server.url)).return_value == ExitCode.OK
    assert json.loads(texts_files(root)["describe.json"])["missing"] == []


def test_one_failure_does_not_stop_the_others(root: Path) -> None:
    acts = [
        servers.reset,
        status(500),
        status(200, b"{"),
        reply(""),
        reply("x" * 300_000),
        reply(GOOD, "length"),
    ]

    def behave(number: int, asked: Asked) -> Act:
        return acts[number] if number < len(acts) else reply(GOOD)

    with serving(behave) as server:
        done = call([*words(root, server.url), "--tries", "1", "--attempts", "1", "--max-failed", "0.9"])
    assert done.return_value == ExitCode.INCONCLUSIVE and len(server.asked) == ALL
    record = json.loads(texts_files(root)["describe.json"])
    assert sorted(one["fault"] for one in record["missing"]) == [
        *("cut", "empty", "server-error", "too-long", "unreachable", "unreadable"),
    ]


@pytest.mark.parametrize("place", ["error", "refusal", "text", "429", "400"])
def test_the_key_shows_nowhere(root: Path, place: str) -> None:
    echo = {"error": {"message": f"Bearer {KEY} may not"}}
    act = {
        "error": status(401, echo),
        "refusal": reply(f"I'm sorry, I cannot accept {KEY} from you."),
        "text": reply(f"{GOOD} {KEY}"),
        "429": status(429, echo, Retry_After="0"),
        "400": status(400, echo),
    }[place]
    with serving(lambda number, asked: act) as server:
        done = call(words(root, server.url, "--tries", "2"))
    assert all(asked.headers["authorization"] == f"Bearer {KEY}" for asked in server.asked)
    shown = done.stdout + done.stderr + repr(done.exception)
    assert KEY not in shown
    assert "may not" in shown or place in ("refusal", "text")  # the rest of what it said is told
    files = [path for path in (root.parent / "texts").rglob("*") if path.is_file()]
    assert files and all(KEY.encode() not in path.read_bytes() for path in files)
    if place == "error":
        assert isinstance(done.exception, BadInput) and len(server.asked) <= 4
    else:
        assert done.return_value == ExitCode.FAILED_ITEMS


def test_requests_at_once_are_bounded(root: Path) -> None:
    def slow(number: int, asked: Asked) -> Act:
        def act(connection: Any) -> None:
            time.sleep(0.05)
            reply(GOOD)(connection)

        return act

    most = {}
    for width in (1, 3):
        with serving(slow) as server:
            out = ["--out", str(root.parent / f"texts{width}")]
            call([*words(root, server.url, "--concurrency", str(width)), *out])
            most[width] = server.most_at_once
            assert len(server.asked) == ALL
    assert most == {1: 1, 3: 3}


def run_apart(arguments: list[str]) -> subprocess.Popen[str]:
    """The command in a process of its own, which can be killed."""
    code = (
        "import sys; from harness.plugins import load_registry; "
        "from trainers.dataset.describing.command import describe; "
        "sys.exit(describe.main(sys.argv[1:], obj=load_registry(), standalone_mode=False))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        preexec_fn=servers.heed_interrupts,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_run_asks_only_for_the_rest(root: Path) -> None:
    """Seven texts are there when the process is killed with one request in flight."""

    def hang(number: int, asked: Asked) -> Act:
        return servers.stall(3) if number == 7 else reply(f"{GOOD} {number}")

    with serving(hang) as server:
        arguments = words(root, server.url, "--concurrency", "1")
        process = run_apart(arguments)
        wait_for(server, 8)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (root.parent / "texts" / DESCRIPTIONS).exists()
        before = {asked.words + str(asked.body["seed"]) for asked in server.asked[:7]}
        server.behave = lambda number, asked: reply(f"{GOOD} {number}")
        resumed = run_apart(arguments)
        _, told = resumed.communicate(timeout=60)
        assert resumed.returncode == ExitCode.OK, told
        assert len(server.asked) == 8 + ALL - 7
        assert before.isdisjoint(asked.words + str(asked.body["seed"]) for asked in server.asked[8:])
    rows = read_texts(root.parent / "texts").descriptions
    assert len({row.text for row in rows}) == world.N_OBJECT


def wait_for(server: Server, count: int) -> None:
    until = time.monotonic() + 60
    while len(server.asked) < count:
        assert time.monotonic() < until, "the command never asked"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["--describer", "mini"], "who writes the texts?"),
        (["--endpoint", "nowhere"], "--endpoint: it is no address"),
        (["mpdd=/gone"], "there is no folder /gone"),
    ],
)
def test_wrong_usage_is_one_sentence(root: Path, changes: list[str], sentence: str) -> None:
    done = call([*words(root, "http://127.0.0.1:9"), *changes])
    assert isinstance(done.exception, BadInput) and sentence in str(done.exception)


def test_what_is_missing_is_named(root: Path) -> None:
    for arguments, sentence in (
        (["--out", "x"], "no dataset is named"),
        ([f"mpdd={root}/MPDD"], "--out is missing"),
        ([f"mpdd={root}/MPDD", "--out", "x"], "who writes the texts?"),
        ([f"mpdd={root}/MPDD", "--out", "x", "--endpoint", "http://h"], "who writes the texts?"),
        ([f"mpdd={root}/MPDD", "--out", "x", "--describer", "nobody"], "there is no describer 'nobody'"),
        ([f"mvtec-ad={root}/MVTec-AD", "--out", "x"], "MVTec-AD: pass --knowledge FILE"),
    ):
        done = call(arguments)
        assert isinstance(done.exception, BadInput) and sentence in str(done.exception), arguments


def test_a_tested_dataset_is_a_text_source_wherever_it_is_named(root: Path) -> None:
    """Its defective images must not reach a describer whose knowledge is trained on."""
    known = ["--knowledge", f"{root}/domain_knowledge.json"]
    done = call([str(root), *known, "--dry-run", "--format", "json", *world.FEW])
    told = json.loads(done.stdout)
    assert told["total"]["calls"] == ALL
    assert "MMAD tests MVTec-AD, so it is a text source" in done.stderr


def test_a_damaged_cache_is_named(root: Path) -> None:
    out = root.parent / "texts"
    out.mkdir()
    (out / FILE_NAME).write_bytes(b"not a database" * 100)
    with serving() as server:
        done = call(words(root, server.url))
    assert isinstance(done.exception, BadInput) and "describe.sqlite" in str(done.exception)
    assert server.asked == []


def test_the_cache_adds_up(tmp_path: Path) -> None:
    with TextCache(tmp_path) as cache:
        cache.add("a", None, 10, 1)
        assert cache.text("a") is None and cache.replies("a") == 1
        cache.add("a", "first", 10, 2)
        cache.add("a", "second", 10, 3)  # another process was quicker: its text stays
    with TextCache(tmp_path) as cache:
        assert cache.text("a") == "first"
        spent = cache.spent(["a", "b"])
        assert (spent.replies, spent.prompt_tokens, spent.completion_tokens) == (3, 30, 6)


def spec(seen: list[TextRequest]) -> DescriberSpec:
    def write(request: TextRequest) -> str:
        seen.append(request)
        return "" if request.place in ("top", "left") else f"product: {request.noun}\nkind: {request.words}"

    return DescriberSpec("rule", "By rule.", write)


def test_a_describer_follows_the_same_plan_and_checks(root: Path, tmp_path: Path) -> None:
    asked, told = world.datasets(root)
    known = read_knowledge(root / "domain_knowledge.json")
    seen: list[TextRequest] = []
    settings = PlanSettings(images=2, normal_texts=1, defect_texts=9)
    out = tmp_path / "offline"
    written = write_with_describer(asked, told, known, spec(seen), out, 0, settings)
    assert len(seen) == len(written.results) == world.N_KNOWLEDGE + 2 + 2 * 2 * 9
    assert {str(checked.fault) for _, checked in written.missing} == {"empty"}
    assert len(written.missing) == 2 * 2 * 2 and written.missing_share == 8 / 41
    rows = read_texts(out).descriptions
    assert len(rows) == 2 + 2 * 2 * 7 and rows[-1].text.startswith("product: bottle\nkind: c")
    normal = next(one for one in seen if one.kind == TextKind.NORMAL_KNOWLEDGE)
    assert [text.split("\n")[0] for text in normal.context] == [" <Bent end>", " <Scratch>"]
    first = {path.name: path.read_bytes() for path in out.iterdir()}
    write_with_describer(asked, told, known, spec([]), out, 0, settings)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == first
    assert set(first) == {KNOWLEDGE, DESCRIPTIONS, "describe.json"}
    write_with_describer([], told, {}, spec([]), out, 0, settings)
    assert not (out / KNOWLEDGE).exists()  # none of an earlier run beside other texts


def test_the_command_line_stays_light() -> None:
    heavy = "{'torch', 'transformers', 'PIL', 'numpy', 'httpx2', 'sqlite3', 'asyncio'}"
    code = f"import sys, trainers.dataset.describing.command; print(sorted({heavy} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"


def test_an_interrupt_leaves_what_is_there(root: Path) -> None:
    def hang(number: int, asked: Asked) -> Act:
        return servers.stall(3) if number >= 5 else reply(GOOD)

    with serving(hang) as server:
        process = run_apart(words(root, server.url, "--concurrency", "2"))
        wait_for(server, 7)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate()
        assert time.monotonic() - started < 2.5  # it does not wait for the requests in flight
        server.behave = lambda number, asked: reply(GOOD)
        assert call(words(root, server.url)).return_value == ExitCode.OK
        assert len(server.asked) == 7 + ALL - 5
