"""``emit-bench train`` on a tiny base and a tiny training set."""

from __future__ import annotations

from pathlib import Path

#: Layers and window that fit the tiny tower; a few steps of a few short responses.
SETTINGS = {
    "model.layers": "1,2",
    "model.window": "1",
    "model.quantise": "none",
    "model.tiles": "1",
    "stage1.batch": "4",
    "stage1.max_steps": "3",
    "stage1.learning_rate": "0.01",
    "sft.batch": "4",
    "sft.max_steps": "3",
    "sft.learning_rate": "0.01",
    "grpo.batch": "8",
    "grpo.max_steps": "4",
    "grpo.epochs": "9",
    "grpo.learning_rate": "0.01",
    "grpo.save_every": "2",
    "rollout.group": "4",
    "rollout.max_new_tokens": "6",
    "rollout.budget": "1",
    "rollout.unsolved": "neutral",
}


def command(recipe: str, out: Path, base: Path, rows: Path, *more: str, **changes: str) -> list[str]:
    chosen = {**SETTINGS, **{key.replace("__", "."): value for key, value in changes.items()}}
    sets = [part for key, value in chosen.items() for part in ("--set", f"{key}={value}")]
    places = ["--data", str(rows), "--weights", str(base), "--out", str(out), "--device", "cpu"]
    more = more if "--processes" in more else (*more, "--processes", "1")
    return ["train", recipe, "--benchmark", "mini", *places, *sets, *more]
