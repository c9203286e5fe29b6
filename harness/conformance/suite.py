"""What ``pytest --emit-conformance`` collects."""

from __future__ import annotations

import pytest

from harness.conformance.checks import ConformanceChecks, Subject


class TestConformance(ConformanceChecks):
    """Every check, for each model named on the command line."""

    @pytest.fixture
    def subject(self, request: pytest.FixtureRequest) -> Subject:
        """The model under test; see :mod:`harness.pytest_plugin`."""
        found: Subject = request.param
        return found
