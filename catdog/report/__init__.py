"""The run's files in; HTML, Markdown and JSON out."""
