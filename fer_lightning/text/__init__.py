"""Words and pages: counts in sentences, Markdown and HTML."""
