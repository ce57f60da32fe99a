"""The documentation as a site: what its pages are made of beside the words in docs/. `make docs` builds it."""
