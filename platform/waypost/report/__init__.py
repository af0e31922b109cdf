"""The report of an evaluation: JSON, Markdown and plots, all from the data of report.json."""
