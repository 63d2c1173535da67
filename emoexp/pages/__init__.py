"""Pages of tables and figures, as Markdown and HTML."""
