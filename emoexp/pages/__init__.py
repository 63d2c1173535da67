"""Pages of tables and figures, as Markdown, HTML and LaTeX."""
