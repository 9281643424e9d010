"""Whole audits: subjects, the audit, its outcome, and the power of an audit."""
