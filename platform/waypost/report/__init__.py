"""The report of an evaluation: JSON, Markdown and plots, all derived from report.json."""
