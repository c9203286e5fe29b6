"""The regression gate: a run against a baseline, judged score by score under a written policy."""
