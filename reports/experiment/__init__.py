"""What an experiment's result files say: tables, figures, and the page they stand in."""

from __future__ import annotations

from reports.experiment.findings import Findings, find
from reports.experiment.tables import experiment_tables
from reports.experiment.writing import put_into, write_experiment

__all__ = ["Findings", "experiment_tables", "find", "put_into", "write_experiment"]
