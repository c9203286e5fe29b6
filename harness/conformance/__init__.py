"""What every model plugin must do, as tests that its author can run: ``pytest --emit-conformance my-model``.

In a test file of one's own, subclass :class:`~harness.conformance.checks.ConformanceChecks` and give it the
fixture ``subject``. pytest is needed for either, and for nothing else in this package.
"""
