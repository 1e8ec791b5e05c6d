"""Self-contained HTML reports, tables and SVG."""
