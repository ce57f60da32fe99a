"""How Sphinx lays the site out: Markdown (MyST) in the theme Furo, nothing from another host; `make docs` builds it."""

project = "perfmodel"
author = "the perfmodel authors"
extensions = ["myst_parser", "perfmodel.benchmarks.project.site.extension"]
exclude_patterns = ["measured/records", "measured_mixtures/records", "measured_serving/records"]
nitpicky = True  # with -W a link that leads nowhere is an error
myst_heading_anchors = 3
myst_links_external_new_tab = False
html_theme = "furo"
html_title = "perfmodel"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["wide_tables.css"]
smartquotes = False
pygments_style = "friendly"
pygments_dark_style = "native"
suppress_warnings = ["misc.highlighting_failure"]  # outputs of commands are text, and some docstrings show half a program
