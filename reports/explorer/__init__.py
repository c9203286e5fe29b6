"""The report as one page that opens from disk: figures, comparisons, and every single question."""

from reports.explorer.audits import AuditResult
from reports.explorer.page import write_page

__all__ = ["AuditResult", "write_page"]
