"""Reports: one table model and its renderers."""
